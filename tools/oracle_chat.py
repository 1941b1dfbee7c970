#!/usr/bin/env python3
"""What jinja2 makes of chat templates, as JSON lines for tests/tok_test_chat.

    tools/oracle_chat.py [--random 1000] [FOLDER...] > cases.jsonl
    build/release/tests/tok_test_chat cases.jsonl

Each line is one user's message, or a conversation, with the head of the answer: {"config", "message" or
"messages", "rendered"}. The
template of each FOLDER (tokenizer_config.json, or chat_template.jinja beside it) is rendered as
transformers does, with trim_blocks and lstrip_blocks; without a folder, small templates of the
known families. Needs the PyPI package jinja2.
"""
import argparse
import json
import pathlib
import random

import jinja2.sandbox

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
    {{ raise_exception('System role not supported') }}
{% endif %}
{% for message in messages %}
    {% if message['role'] == 'assistant' %}{% set role = 'model' %}
    {% else %}{% set role = message['role'] %}{% endif %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' -}}
{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""
JAMBA = """{# The form of Jamba 1.5 to 1.7 without tools and documents. #}
{% set begin, end = "<|bom|>", "<|eom|>" %}
{% set default_system_message = default_system_message or "" %}
{% macro head(role) %}{{- begin + "<|" + role + "|>" -}}{% endmacro %}
{% if bos_token is defined and bos_token is not none %}
  {{- bos_token -}}
{% endif %}
{% if messages[0].role != "system" %}
  {{- head("system") + " " + default_system_message + end -}}
{% endif %}
{% for message in messages %}
  {{- head(message.role) + " " + (message.content or "") + end -}}
{% endfor %}
{% if add_generation_prompt %}
  {{- head("assistant") -}}
{% endif %}
"""
PARTS = [" ", "\n", "\t", "\u00a0", "\u3000", "\u200b", "\x1c", "\x85", "a", "Hello", "{{ x }}", "{% if %}",
         "<|bom|>", "<start_of_turn>", "\u20ac", "\U0001f600", "'", '"', "\\n", "<b>&amp;", "\r\n"]


def of_folder(folder):
    config = json.loads((pathlib.Path(folder) / "tokenizer_config.json").read_text())
    own = pathlib.Path(folder) / "chat_template.jinja"
    if own.exists():
        config["chat_template"] = own.read_text()
    return config


def text_of(token):
    return token["content"] if isinstance(token, dict) else token


def render(config, messages):
    template = config["chat_template"]
    if isinstance(template, list):
        template = next(t["template"] for t in template if t["name"] == "default")
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=True,
        **{key: text_of(value) for key, value in config.items() if key.endswith("_token")})


def words(rng):
    return "".join(rng.choices(PARTS, k=rng.randrange(12)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--random", type=int, default=1000, help="messages for each template")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    configs = [of_folder(folder) for folder in args.folders]
    for bos in ("<bos>", "<|startoftext|>", None) if not configs else ():
        for template in (GEMMA, JAMBA):
            if bos or template is JAMBA:
                configs.append({"chat_template": template} | ({"bos_token": bos} if bos else {}))
    rng = random.Random(args.seed)
    for config in configs:
        for _ in range(args.random):
            message = words(rng)
            user = [{"role": "user", "content": message}]
            print(json.dumps({"config": config, "message": message, "rendered": render(config, user)}))
            system = [] if "System role not supported" in str(config) else [{"role": "system", "content": words(rng)}]
            turns = [{"role": role, "content": words(rng)} for role in ["user", "assistant"] * rng.randrange(4) + ["user"]]
            messages = system * rng.randrange(2) + turns
            print(json.dumps({"config": config, "messages": messages, "rendered": render(config, messages)}))


main()

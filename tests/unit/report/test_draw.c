/* test_draw.c - the canvas: file forms, text boxes, SVG for pages, escaping. */
#include "test.h"

#include "cells.h" /* for the note to the leak checker */
#include "report/draw.h"

typedef struct one_text {
    ct_text_style style;
    const char *text;
} one_text;

static ct_status draw_text(ct_canvas *canvas, const void *user, ct_err *err)
{
    (void)err;
    const one_text *t = user;
    ct_canvas_set_size(canvas, 200, 100);
    ct_canvas_text(canvas, &t->style, 100, 50, t->text);
    return CT_OK;
}

static ct_box box_of(one_text t)
{
    ct_err err = {0};
    ct_fonts *fonts;
    ct_text_box *texts;
    ct_box page, box;
    size_t n;
    assert_ok(ct_fonts_new(&fonts, &err));
    assert_ok(ct_figure_measure(fonts, draw_text, &t, &page, &texts, &n, &err));
    assert_int_equal(n, 1);
    assert_true(page.width == 200 && page.height == 100);
    box = texts[0].box;
    ct_text_boxes_free(texts, n);
    ct_fonts_free(fonts);
    return box;
}

static void text_stands_where_its_alignment_says(void **state)
{
    (void)state;
    /* "H" is as wide and as high as its ink but for side bearings, below a point at this size. */
    one_text t = {{.size = 10}, "H"};
    ct_box b = box_of(t);
    assert_true(b.x >= 100 && b.x < 101.5);
    assert_true(b.y > 49 && b.y < 51 && b.y + b.height > 56);
    t.style.across = CT_ALIGN_END;
    t.style.down = CT_ALIGN_END;
    b = box_of(t);
    assert_true(b.x + b.width <= 100 && b.x + b.width > 98.5);
    assert_true(b.y + b.height > 49 && b.y + b.height < 51);
    t.style.across = CT_ALIGN_MIDDLE;
    t.style.down = CT_ALIGN_MIDDLE;
    b = box_of(t);
    assert_true(b.x + b.width / 2 > 99 && b.x + b.width / 2 < 101);
    assert_true(b.y + b.height / 2 > 49 && b.y + b.height / 2 < 51);
}

static void upward_text_is_higher_than_wide_and_centred(void **state)
{
    (void)state;
    one_text t = {{.size = 10, .upwards = true, .across = CT_ALIGN_MIDDLE}, "HHHHHHHH"};
    ct_box b = box_of(t);
    assert_true(b.height > 3 * b.width);
    assert_true(b.y + b.height / 2 > 49 && b.y + b.height / 2 < 51);
    assert_true(b.x > 99 && b.x < 101);
}

static void text_keeps_its_width_by_ellipsis_or_by_wrapping(void **state)
{
    (void)state;
    one_text t = {{.size = 8, .max_width = 60}, "a text of words that is far too long for it"};
    ct_box cut = box_of(t);
    assert_true(cut.width <= 60 && cut.height < 10);
    t.style.wrap = true;
    ct_box wrapped = box_of(t);
    assert_true(wrapped.width <= 60 && wrapped.height > 20);
}

static void broken_text_is_drawn_and_not_refused(void **state)
{
    (void)state;
    one_text t = {{.size = 8}, "\xFF\xC3\x28 \x01\n\xED\xA0\x80"};
    assert_true(box_of(t).width > 0);
    t.text = "";
    assert_true(box_of(t).width == 0);
}

static void forms_begin_with_their_marks_and_carry_the_title(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_fonts *fonts;
    ct_buf svg = {0}, pdf = {0}, png = {0};
    one_text t = {{.size = 10}, "word"};
    assert_ok(ct_fonts_new(&fonts, &err));
    assert_ok(
        ct_figure_render(fonts, draw_text, &t, "A <title>", "1 < 2", CT_FIGURE_SVG, &svg, &err));
    assert_ok(ct_figure_render(fonts, draw_text, &t, "A title", "", CT_FIGURE_PDF, &pdf, &err));
    assert_ok(ct_figure_render(fonts, draw_text, &t, "A title", "", CT_FIGURE_PNG, &png, &err));
    assert_non_null(strstr(svg.data, "<title id=\"title\">A &lt;title&gt;</title>"));
    assert_non_null(strstr(svg.data, "<desc id=\"desc\">1 &lt; 2</desc>"));
    assert_non_null(strstr(svg.data, "width=\"200pt\" height=\"100pt\""));
    assert_null(strstr(svg.data, "<text")); /* outlines: no font is needed to see it */
    assert_memory_equal(pdf.data, "%PDF-", 5);
    assert_memory_equal(png.data, "\x89PNG", 4);
    /* Width and height in the header chunk: 200 x 100 points at 192 dots per inch. */
    assert_memory_equal(png.data + 16, "\0\0\x02\x16\0\0\x01\x0B", 8);
    ct_fonts_free(fonts);
    ct_buf_clear(&svg);
    ct_buf_clear(&pdf);
    ct_buf_clear(&png);
}

static ct_status draw_and_fail(ct_canvas *canvas, const void *user, ct_err *err)
{
    (void)canvas;
    (void)user;
    err->status = CT_ERR_LIMIT;
    strcpy(err->text, "too much");
    return CT_ERR_LIMIT;
}

static void a_figure_that_fails_gives_its_error_and_no_bytes(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_fonts *fonts;
    ct_buf out = {0};
    assert_ok(ct_fonts_new(&fonts, &err));
    for (int form = CT_FIGURE_SVG; form <= CT_FIGURE_PNG; form++)
        assert_fails(
            ct_figure_render(fonts, draw_and_fail, NULL, "t", "", (ct_figure_form)form, &out, &err),
            CT_ERR_LIMIT, "too much");
    assert_int_equal(out.size, 0);
    ct_fonts_free(fonts);
}

static void inlined_svg_has_prefixed_ids_and_untouched_words(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_buf out = {0};
    const char svg[] = "<?xml version=\"1.0\"?>\n<svg role=\"img\" aria-labelledby=\"title desc\">"
                       "<title id=\"title\">id=\"x\" url(#y)</title><desc id=\"desc\"></desc>"
                       "<g id=\"a\" clip-path=\"url(#c)\"/><use xlink:href=\"#a\" grid=\"1\"/>"
                       "</svg>\n";
    assert_ok(ct_svg_inline(svg, sizeof svg - 1, "f7", &out, &err));
    assert_string_equal(out.data,
                        "<svg role=\"img\" aria-labelledby=\"f7-title f7-desc\">"
                        "<title id=\"f7-title\">id=\"x\" url(#y)</title><desc id=\"f7-desc\">"
                        "</desc><g id=\"f7-a\" clip-path=\"url(#f7-c)\"/>"
                        "<use xlink:href=\"#f7-a\" grid=\"1\"/></svg>\n");
    ct_buf_clear(&out);
}

static void escaped_text_is_valid_xml(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_buf out = {0};
    assert_ok(
        ct_xml_escape("<a href=\"x\">'&'</a>\n\x01\xFF\xEF\xBF\xBE\xC3\xA9", true, &out, &err));
    assert_string_equal(out.data, "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt; "
                                  "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xC3\xA9");
    ct_buf_clear(&out);
    assert_ok(ct_xml_escape("a\n\tb", false, &out, &err));
    assert_string_equal(out.data, "a\n\tb");
    ct_buf_clear(&out);
}

static void boxes_meet_only_if_they_share_area(void **state)
{
    (void)state;
    ct_box a = {0, 0, 10, 10};
    assert_true(ct_box_meets(a, (ct_box){9, 9, 5, 5}));
    assert_true(ct_box_meets(a, (ct_box){2, 2, 1, 1}));
    assert_false(ct_box_meets(a, (ct_box){10, 0, 5, 5}));
    assert_false(ct_box_meets(a, (ct_box){0, -5, 5, 5}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_stands_where_its_alignment_says),
        cmocka_unit_test(upward_text_is_higher_than_wide_and_centred),
        cmocka_unit_test(text_keeps_its_width_by_ellipsis_or_by_wrapping),
        cmocka_unit_test(broken_text_is_drawn_and_not_refused),
        cmocka_unit_test(forms_begin_with_their_marks_and_carry_the_title),
        cmocka_unit_test(a_figure_that_fails_gives_its_error_and_no_bytes),
        cmocka_unit_test(inlined_svg_has_prefixed_ids_and_untouched_words),
        cmocka_unit_test(escaped_text_is_valid_xml),
        cmocka_unit_test(boxes_meet_only_if_they_share_area),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* assets.h - the page's HTML, style and script, as bytes.
 *
 * The sources are page.html, page.css and page.js beside this file; cmake/embed.cmake turns them
 * into arrays when the program is built. Each ends with a NUL that its size does not count.
 */
#ifndef CT_REPORT_ASSETS_H
#define CT_REPORT_ASSETS_H

#include <stddef.h>

extern const unsigned char ct_asset_page_html[], ct_asset_page_css[], ct_asset_page_js[];
extern const size_t ct_asset_page_html_size, ct_asset_page_css_size, ct_asset_page_js_size;

#endif

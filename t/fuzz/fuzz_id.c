/* fuzz_id.c - ha_id_parse on any request, held against the two plain readings of reference_id.h.
 * Input: one byte that chooses the rules, then url NUL cookies NUL header. */
#include "fuzz.h"
#include "reference_id.h"

static int known(void *baton, const char *route, apr_size_t len)
{
    return (len == 7 && (memcmp(route, "tomcat1", 7) == 0 || memcmp(route, "tomcat2", 7) == 0)) || (len == 3 && memcmp(route, "b.c", 3) == 0)
        || (len == 1 && *route == 'r');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ha_id_rules rules[] = {
        { "JSESSIONID", "jsessionid", NULL, '.', 0 }, { "JSESSIONID", "jsessionid", "X", '.', 0 }, { "ROUTEID", "ROUTEID", NULL, 0, 0 },
        { "S", "s", NULL, '.', 0 }, { "SS", "SS", "X", '!', 0 }, { "connect.sid", "sid", "X", '.', 1 }, { NULL, "s", "X", '.', 0 }, { "S", NULL, NULL, '.', 0 }
    };
    const ha_id_rules *r;
    const uint8_t *nul;
    char *text[3] = { NULL, NULL, NULL };
    const char *wrong;
    apr_status_t rv;
    ha_id out;
    int i;

    if (size < 1 || size > 2048)        /* the reference's values are of fixed size */
        return 0;
    r = &rules[data[0] & 7];
    data++;
    size--;
    for (i = 0; i < 3 && data; i++) {   /* what is behind a third NUL is not looked at */
        nul = memchr(data, '\0', size);
        text[i] = fuzz_copy(data, nul ? (size_t)(nul - data) : size, 1);
        size -= nul ? (size_t)(nul + 1 - data) : size;
        data = nul ? nul + 1 : NULL;
    }
    if (!r->header) {
        free(text[2]);
        text[2] = NULL;
    }
    rv = ha_id_parse(r, text[0], text[1], text[2], known, NULL, fuzz_pool(), &out);
    if ((wrong = ref_compare(r, text[0], text[1], text[2], known, rv, &out))) {
        fprintf(stderr, "%s\n url <%s>\n cookies <%s>\n header <%s>\n got id <%s> route <%s> known %d place %d stock_sees %d\n", wrong, text[0], text[1] ? text[1] : "-",
                text[2] ? text[2] : "-", out.id ? out.id : "-", out.route ? out.route : "-", out.route_known, (int)out.place, out.stock_sees);
        abort();
    }
    for (i = 0; i < 3; i++)
        free(text[i]);
    return 0;
}

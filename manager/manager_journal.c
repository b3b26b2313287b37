/* manager_journal.c - the last failovers, in a ring that nobody can block.
 *
 *   +------+---------+---------+---------+-----+-----------+
 *   | head | entry 0 | entry 1 | entry 2 | ... | entry n-1 |
 *   +------+---------+---------+---------+-----+-----------+
 *     |       |
 *     |       turn | sum | what happened
 *     layout, entries, next
 *
 *   next   the last ticket handed out, from 1. Ticket t goes to entry (t - 1) mod n.
 *   turn   0: never used; 2t + 1: ticket t is writing; 2t: ticket t is there
 *   sum    over the ticket and what happened
 *
 * A writer takes a ticket, moves the turn forward to 2t + 1, writes, and moves it on to 2t; each step is
 * one atomic instruction and none is repeated for long, because turns only grow. A writer killed half way
 * leaves an odd turn: readers pass it over until the ring comes round and the next ticket takes it.
 * A writer that slept while the ring came round can scribble into its successor's entry; the turn does
 * not show that, the sum does. So a reader shows an entry whose turn was even and the same before and
 * after the copy and whose sum is right, or nothing.
 */
#include <string.h>

#include "apr_atomic.h"
#include "apr_strings.h"
#include "manager_shared.h"

/* "SHAJ" and the number of the layout: another number when a structure below changes. */
#define LAYOUT (APR_UINT64_C(0x5348414a) << 32 | 1)

typedef struct place {
    volatile apr_uint64_t turn;
    apr_uint64_t sum;
    ha_journal_entry what;
} place;

struct ha_journal {
    apr_uint64_t layout, place_size, entries;
    volatile apr_uint64_t next;
    place places[1];                /* `entries` of them */
};

apr_size_t ha_journal_size(int entries)
{
    return sizeof(ha_journal) + (apr_size_t)(entries - 1) * sizeof(place);
}

ha_journal *ha_journal_format(void *memory, int entries)
{
    ha_journal *j = memory;

    memset(j, 0, ha_journal_size(entries));
    j->layout = LAYOUT;
    j->place_size = sizeof(place);
    j->entries = (apr_uint64_t)entries;
    return j;
}

ha_journal *ha_journal_adopt(void *memory, apr_size_t size)
{
    ha_journal *j = memory;

    if (size < sizeof(*j) || j->layout != LAYOUT || j->place_size != sizeof(place)
        || j->entries < 1 || j->entries > HA_JOURNAL_MAX || size < ha_journal_size((int)j->entries))
        return NULL;
    return j;
}

int ha_journal_entries(const ha_journal *j)
{
    return (int)j->entries;
}

static apr_uint64_t sum_of(apr_uint64_t ticket, const ha_journal_entry *what)
{
    const unsigned char *at = (const unsigned char *)what, *end = at + sizeof(*what);
    apr_uint64_t sum = APR_UINT64_C(0xcbf29ce484222325) ^ ticket;

    for (; at < end; at += sizeof(apr_uint64_t)) {
        apr_uint64_t eight;

        memcpy(&eight, at, sizeof(eight));
        sum = (sum ^ eight) * APR_UINT64_C(0x100000001b3);
        sum ^= sum >> 29;           /* FNV alone never carries a high bit down */
    }
    return sum;
}

static void append(ha_journal *j, const ha_journal_entry *what)
{
    apr_uint64_t ticket = apr_atomic_inc64(&j->next) + 1;
    place *at = &j->places[(ticket - 1) % j->entries];
    apr_uint64_t turn = apr_atomic_read64(&at->turn), was;

    for (;;) {
        if (turn >> 1 >= ticket)
            return;                 /* the ring came round before we began: ours is no longer among the last */
        was = apr_atomic_cas64(&at->turn, ticket << 1 | 1, turn);
        if (was == turn)
            break;
        turn = was;
    }
    memcpy(&at->what, what, sizeof(*what));
    at->sum = sum_of(ticket, what);
    apr_atomic_cas64(&at->turn, ticket << 1, ticket << 1 | 1);      /* fails if we were overtaken: so be it */
}

void ha_journal_append(ha_journal *j, const ha_event *event)
{
    ha_journal_entry what;

    memset(&what, 0, sizeof(what));
    what.time = event->time;
    what.took = event->took;
    what.epoch = event->version.epoch;
    what.seq = event->version.seq;
    what.bytes = event->bytes;
    what.outcome = (apr_uint32_t)event->outcome;
    what.trips = (apr_uint32_t)event->trips;
    memcpy(what.session, event->session, sizeof(event->session) - 1);
    apr_cpystrn(what.cause, event->cause ? event->cause : "", sizeof(what.cause));
    apr_cpystrn(what.from, event->from ? event->from : "", sizeof(what.from));
    apr_cpystrn(what.to, event->to ? event->to : "", sizeof(what.to));
    apr_cpystrn(what.balancer, event->balancer ? event->balancer : "", sizeof(what.balancer));
    append(j, &what);
}

apr_array_header_t *ha_journal_read(ha_journal *j, apr_pool_t *p)
{
    apr_uint64_t last = j ? apr_atomic_read64(&j->next) : 0;
    apr_uint64_t n = j && last > j->entries ? j->entries : last;
    apr_array_header_t *rows = apr_array_make(p, n ? (int)n : 1, sizeof(ha_journal_entry));
    apr_uint64_t ticket;

    for (ticket = last; ticket > last - n; ticket--) {
        place *at = &j->places[(ticket - 1) % j->entries];
        ha_journal_entry *row = apr_array_push(rows);
        apr_uint64_t sum;

        /* adding 0 is a read with a full barrier on both sides; a plain one would let the copy slip past it */
        int good = apr_atomic_add64(&at->turn, 0) == ticket << 1;

        memcpy(row, &at->what, sizeof(*row));
        sum = at->sum;
        if (!good || apr_atomic_add64(&at->turn, 0) != ticket << 1 || sum != sum_of(ticket, row))
            apr_array_pop(rows);
    }
    return rows;
}

void ha_journal_copy(ha_journal *to, ha_journal *from, apr_pool_t *ptemp)
{
    apr_array_header_t *rows = ha_journal_read(from, ptemp);
    int i = rows->nelts;

    if (i > ha_journal_entries(to))
        i = ha_journal_entries(to);
    while (i-- > 0)                 /* oldest first, as they came */
        append(to, &APR_ARRAY_IDX(rows, i, ha_journal_entry));
}

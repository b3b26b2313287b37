#!/bin/sh
# Does the randomised fault test find bugs? Plants one after the other in a copy of the source, builds it, and runs
# t/90_faults.t with one seed after the other until it is red. By hand; doc/faults.md has what it printed.
#   t/plant.sh [NAME ...]                 all of them by default
#   PLANT_SECONDS=60 PLANT_RUNS=4 PLANT_SEED=1 PLANT_DIR=/tmp/plant
# 1 if a bug was not found.
set -eu
src=$(cd "$(dirname "$0")/.." && pwd)
dir=${PLANT_DIR:-$(mktemp -d /tmp/session_ha-plant.XXXXXX)}
seconds=${PLANT_SECONDS:-60} runs=${PLANT_RUNS:-4} first=${PLANT_SEED:-1}
chmod 755 "$dir"

if [ ! -f "$dir/Makefile" ]; then
    tar -C "$src" --exclude=./.git --exclude=./check --exclude='./autom4te.cache' -cf - . | tar -C "$dir" -xf -
    (cd "$dir" && { [ ! -f Makefile ] || make -s distclean >/dev/null 2>&1 || :; } && autoreconf -fi && ./configure --quiet) >"$dir/build.log" 2>&1
fi
cd "$dir"

# plant FILE PERL-SUBSTITUTION: it must change something
plant() {
    [ -f "$1.unplanted" ] || cp -p "$1" "$1.unplanted"
    perl -0pi -e "\$n += $2; END { exit !\$n }" "$1" || { echo "the bug does not fit $1 any more" >&2; exit 2; }
}
weed() {
    find . -name '*.unplanted' | while read -r f; do mv "$f" "${f%.unplanted}"; touch "${f%.unplanted}"; done
}

# sets httpds, which faults there are, and what the bug is
sow() {
    httpds=2 only=
    case $1 in
    none)    what='nothing: must stay green' ;;
    fence)   what='a member that slept while its sessions moved is believed'
             plant session/session_table.c 's/if \(v\.epoch < e->epoch\)\s+answer = HA_PUT_FENCED;\s+else //'
             plant balancer/balancer_response.c 's/(static int has_left\(ha_request \*q\)\n\{\n)/${1}    if (q)\n        return 0;\n/'
             plant session/session_capture.c 's/if \(shared && kept && claimed_elsewhere/if (0 \&\& shared \&\& claimed_elsewhere/' ;;
    claim)   what='whoever claims a session gets it'
             plant session/session_failover.c 's/rv = ha_store_claim(\(s->store, call, ha_key_claim\(&s->digest, next, call->pool\), &mine, apr_time_now\(\) \+ CLAIM_LIFE\(ttl\),)\s+&theirs, places, s->claims_only \? 0 : 2, (&trace\);)/rv = ha_store_put$1 $2\n    (void)ha_store_look(s->store, call, places, 2, NULL);/'
             plant session/session_failover.c 's/ha_value mine, theirs;/ha_value mine, theirs = { { NULL, 0 }, { 0, 0 } };/' ;;
    node)    what='claims and backups are looked for on their first node only'
             plant store/store.c 's/(for \(i = 0; i < )store->nnodes(; i\+\+\) \{\s+ask\.broken \+= !ha_ask_node\(&ask, i, HA_ASK_GET)/${1}1$2/' ;;
    place)   what='of the two places of a backup one is looked at'
             plant session/session_failover.c 's/(        if \()(places\[i\]\.rv != APR_SUCCESS\) \{)/${1}i == 1 || $2/' ;;
    restore) what='the Valve takes any restore, whatever it holds'
             plant adapters/tomcat/src/org/sessionha/SessionRecord.java 's/return version\(\)\.compareTo\(version\) < 0 &&.*?;/return true;/' ;;
    left)    what='a member that sessions were moved off is not in doubt'
             httpds=1 only=drain        # with two, the member is asked to let the session leave, and says 425
             plant manager/manager_counters.c 's/(forward\(&slot->last_left, when\);\s+)forward\(&slot->last_doubt, when\);/$1/' ;;
    leave)   what='sessions are moved under requests of the other httpd'
             only=drain
             plant balancer/balancer_transit.c 's/ha_peers_present\(q->balancer\) && !others_have_left/0 \&\& !others_have_left/' ;;
    gate)    what='nobody waits while a session is taken over'
             plant session/session_table.c 's/mine = e->gate <= now;/mine = 1;/' ;;
    post)    what='a POST is repeated as a GET is'
             plant balancer/balancer_repeat.c 's/if \(class == HA_RETRY_OFF\)/if (class != HA_RETRY_OFF)\n        return 1;\n    if (class == HA_RETRY_OFF)/' ;;
    repeat)  what='nothing is repeated'
             plant balancer/balancer_repeat.c 's/if \(class == HA_RETRY_OFF\)/if (1)/' ;;
    newest)  what='of two copies any is taken, not the newest'
             plant store/store.c 's/best == NULL \|\| !ha_newer\(&best->env\.version, &copy->env\.version\)/best == NULL/' ;;
    copies)  what='one copy, where two were ordered'
             plant store/store.c 's/wanted = store->copies, acked/wanted = 1, acked/' ;;
    sync)    what='an answer does not wait for its backup: each fifth is not written'
             plant session/session_capture.c 's/(    case HA_PUT_GO:\n)/$1        if (record->version.seq % 5 == 0) {\n            ha_table_put_end(table, \&s->digest, record->version, record->route, asked, HA_ACK_STATE);\n            return HA_CAPTURE_STORED;\n        }\n/' ;;
    *)       echo "no such bug: $1" >&2; exit 2 ;;
    esac
}

missed=0
trap weed EXIT
for bug in ${*:-none fence claim node place restore gate post repeat newest copies sync left leave}; do
    weed
    sow "$bug"
    make >build.log 2>&1 || { tail -n 20 build.log; exit 2; }
    seed=$first found=
    while [ "$seed" -lt $((first + runs)) ]; do
        if ! HA_FAULT_SEED=$seed HA_FAULT_SECONDS=$seconds HA_FAULT_HTTPDS=$httpds HA_FAULT_ONLY=$only HA_FAULT_STRICT=1 \
            TEST_FILE_TIMEOUT=$((seconds * 2 + 180)) make -s check-httpd TEST_FILES=t/90_faults.t TEST_VERBOSE_FLAG=-verbose >"$bug.$seed.log" 2>&1; then
            found=$(sed -n 's/^not ok [0-9]* - \([^:]*\).*/\1/p' "$bug.$seed.log" | tr '\n' ' ')
            break
        fi
        seed=$((seed + 1))
    done
    if [ -n "$found" ]; then found="red: ${found}(seed $seed)"; fi
    printf '%-8s %-66s %s\n' "$bug" "$what" "${found:-green}"
    case $bug:$found in none:?*) missed=1 ;; none:) ;; *:) missed=1 ;; esac
done
exit $missed

#!/bin/sh
# The rooms' include lines are the architecture (doc/architecture.md): balancer -> session -> store,
# balancer -> manager, and session/ and store/ know no server. Reads every #include of the module's own
# files and says which arrow points where it may not.
# TAP. Usage: check_arrows.sh [srcdir]
set -u
cd "${1:-$(dirname "$0")/..}" || exit 1
files=$(find . -maxdepth 1 -name '*.[ch]' ! -name autoconf.h; find balancer session store manager -name '*.[ch]')
files=$(printf '%s\n' "$files" | sed 's,^\./,,' | sort)
n=0; bad=0
for f in $files; do
    n=$((n + 1))
    wrong=$(awk -v file="$f" '
        BEGIN {
            # what a room may include of ours; the first column is a room, or a file that stands in none
            may["session"]  = "session store mod_session_ha.h autoconf.h"
            may["store"]    = "store mod_session_ha.h autoconf.h"
            may["manager"]  = "manager mod_session_ha.h HTTPD"
            may["balancer"] = "balancer session manager ha_config.h mod_session_ha.h HTTPD PROXY"
            may["ha_config"] = "session store ha_config.h ha_values.h mod_session_ha.h HTTPD"
            may["ha_values"] = "ha_values.h HTTPD"
            may["ha_settle"] = "ha_config.h ha_state.h HTTPD"
            may["ha_state"] = "session ha_state.h mod_session_ha.h autoconf.h"
            may["mod_session_ha.h"] = ""
            may["mod_session_ha.c"] = "balancer session store manager ha_config.h mod_session_ha.h HTTPD"
            room = file
            if (room ~ /\//) sub(/\/.*/, "", room)
            else if (room ~ /^ha_/) sub(/\.[ch]$/, "", room)
            if (!(room in may)) { print file ": a file in no room (t/check_arrows.sh knows none for it)"; exit }
            k = split(may[room], list, " ")
            for (i = 1; i <= k; i++) allowed[list[i]] = 1
        }
        /^[ \t]*#[ \t]*include[ \t]*[<"]/ {
            name = $0
            sub(/^[^<"]*[<"]/, "", name); sub(/[>"].*/, "", name)
            base = name; sub(/.*\//, "", base)
            if (base == "mod_proxy.h" || base == "proxy_util.h") to = "PROXY"
            else if (base != "mod_session_ha.h" && base ~ /^(httpd|http_.*|ap_.*|util_.*|mod_.*|unixd|mpm_.*|scoreboard|heartbeat|os|cache_common)\.h$/)
                to = "HTTPD"
            else if ($0 ~ /</ || base ~ /^apr/) next    # the system, APR, a library
            else {
                to = name
                # "../room/x.h" from inside a room, "room/x.h" from outside, "x.h" beside
                if (file ~ /\// && to !~ /^\.\.\//) to = room "/" to
                while (to ~ /\.\.\//) sub(/^([^\/]*\/)?\.\.\//, "", to)
                if (to ~ /\//) sub(/\/.*/, "", to)
            }
            if (!(to in allowed)) print file ":" FNR ": " room " may not include " name
        }' "$f")
    if [ -z "$wrong" ]; then echo "ok $n - $f"; else
        bad=$((bad + 1)); echo "not ok $n - $f"; printf '%s\n' "$wrong" | sed 's/^/#   /'
    fi
done
for room in balancer session store manager; do
    n=$((n + 1))
    if printf '%s\n' "$files" | grep -q "^$room/"; then echo "ok $n - $room/ is there"; else
        bad=$((bad + 1)); echo "not ok $n - $room/ is there"
    fi
done
echo "1..$n"
[ $bad -eq 0 ]

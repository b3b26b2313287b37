#!/bin/sh
# A directive is easily forgotten somewhere, and everything still compiles. For each one in ha_config.c:
#   - conf/session_ha.conf documents it: text, Allowed, Default, and a line that shows it; and nothing else does
#   - each member of ha_config starts as "not said", is merged, and has a default
# TAP. Usage: check_directives.sh [srcdir]
set -u
cd "${1:-$(dirname "$0")/..}" || exit 1
n=0; bad=0
ok() {      # ok <status> <name> [<what is wrong>]
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else
        bad=$((bad + 1)); echo "not ok $n - $2"; [ -z "${3-}" ] || printf '%s\n' "$3" | sed 's/^/#   /'
    fi
}
# the body of a function of ha_config.c
body() { sed -n "/^[a-z].*[ *]$1(/,/^}/p" ha_config.c; }

rows=$(sed -n 's/^    AP_INIT_[A-Z0-9_]*("\([A-Za-z]*\)".*/\1/p' ha_config.c | sort)
conf=$(sed -n 's/^#\{0,1\}\(SessionHA[A-Za-z]*\)[ ].*/\1/p' conf/session_ha.conf | sort -u)
[ "$(echo "$rows" | wc -l)" -ge 13 ]; ok $? 'the directives are found in ha_config.c' "$rows"
[ -z "$(echo "$rows" | uniq -d)" ]; ok $? 'none stands there twice'

for d in $rows; do
    # the paragraph that ends with the line that shows the directive
    text=$(awk -v d="$d" 'BEGIN { RS = ""; FS = "\n" } $NF ~ "^#" d " " { print; exit }' conf/session_ha.conf)
    missing=
    [ -n "$text" ] || missing="no paragraph that ends with a line \"#$d ...\""
    for word in Allowed Default; do
        printf '%s\n' "$text" | grep -q "^# $word: ." || missing="$missing
no line \"# $word: ...\""
    done
    [ -z "$missing" ]; ok $? "$d stands in conf/session_ha.conf" "$missing"
done
for d in $conf; do
    echo "$rows" | grep -qx "$d"; ok $? "$d of conf/session_ha.conf is in ha_config.c"
done

# "number copies", "pointer native", ... from the structure
members=$(awk '/^} ha_config;/ { on = 0 }
    on && /;/ {
        sub(/\/\*.*/, ""); sub(/;.*/, "")
        k = split($0, part, ",")
        for (i = 1; i <= k; i++) {
            kind = part[i] ~ /\*/ ? "pointer" : "number"
            sub(/.*[ *]/, "", part[i])
            print kind, part[i]
        }
    }
    /^typedef struct ha_config \{/ { on = 1 }' ha_config.h)
[ "$(echo "$members" | wc -l)" -ge 16 ]; ok $? 'the members of ha_config are found in ha_config.h' "$members"
create=$(body ha_config_create)
merge=$(body ha_config_merge)
defaults=$(sed -n '/^\/\* In a server/,/^}/p' ha_config.c)      # with its comment: NULL as a default
while read -r kind m; do
    missing=
    if [ "$kind" = number ]; then       # pointers are NULL from pcalloc
        printf '%s' "$create" | grep -q "[>]$m = .*UNSET" || missing="ha_config_create does not make $m UNSET"
    fi
    printf '%s' "$merge" | grep -qE "(\(|>)$m( =|\))" || missing="$missing
ha_config_merge has no $m"
    if [ "$m" != server ]; then         # not a setting: where a section was written
        printf '%s' "$defaults" | grep -qw "$m" || missing="$missing
ha_config_fill_in has no default of $m"
    fi
    [ -z "$missing" ]; ok $? "$m starts as not said, is merged, has a default" "$missing"
done <<END
$members
END
echo "1..$n"
[ $bad -eq 0 ]

#!/bin/sh
# The module shares its process with httpd and every other module: it exports its record, and nothing else.
# TAP. Usage: check_symbols.sh mod_session_ha.so
so=${1:-.libs/mod_session_ha.so}
out=$(nm -D --defined-only "$so" | sed 's/^[0-9a-f]* //')
echo 1..1
if [ "$out" = "D session_ha_module" ]; then echo "ok 1 - one exported symbol"; else
    echo "not ok 1 - one exported symbol"; printf '%s\n' "$out" | sed 's/^/#   /'; exit 1
fi

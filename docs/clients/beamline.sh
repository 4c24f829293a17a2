#!/usr/bin/env bash
# Sends one request to the gateway, again and again if need be, until it is settled.
#
#     beamline.sh POST /api/v1/usage < event.json
#
# BEAMLINE_URL, BEAMLINE_KEY; BEAMLINE_PATIENCE_SECONDS (120) must stay below the gateway's IDEMPOTENCY_TTL_MS.
# Exit code 0: done, the answer is on standard output. 1: refused, and asking again would not help; the answer is on
# standard error. 3: not settled; whether it happened is not known, the same request later tells.
set -euo pipefail
method=$1 path=$2
give_up=$((SECONDS + ${BEAMLINE_PATIENCE_SECONDS:-120}))
attempt_seconds=15
[ "$method" = GET ] && attempt_seconds=45 # a long poll takes up to 30

work=$(mktemp -d) # nobody else can read it: the key does not belong on a command line
trap 'rm -rf "$work"' EXIT
printf 'Authorization: Bearer %s\nContent-Type: application/json\n' "$BEAMLINE_KEY" > "$work/sent"
request=(--request "$method" --header "@$work/sent")
if [ "$method" = POST ]; then
    cat > "$work/body" # read once: every attempt sends the same bytes, so the same id
    request+=(--data-binary "@$work/body")
fi

backoff_ms=200
while :; do
    : > "$work/headers" > "$work/answer"
    status=$(curl --silent --show-error --connect-timeout 2 --max-time "$attempt_seconds" "${request[@]}" \
        --dump-header "$work/headers" --output "$work/answer" --write-out '%{http_code}' \
        "$BEAMLINE_URL$path" 2> "$work/why") || status=000 # refused, reset, cut off, too slow: nothing is known
    retry_after=$(tr -d '\r' < "$work/headers" | awk 'tolower($1) == "retry-after:" && $2 ~ /^[0-9]+$/ {print $2}' | tail -n 1)

    case $status in
        2??) cat "$work/answer"; exit 0 ;;
        000) ;;
        408 | 429 | 500 | 502 | 503 | 504) cat "$work/answer" > "$work/why" ;;
        409) # in_progress names a time, idempotency_conflict does not
            [ -n "$retry_after" ] || { cat "$work/answer" >&2; exit 1; }
            cat "$work/answer" > "$work/why" ;;
        *) cat "$work/answer" >&2; exit 1 ;;
    esac

    # At least what the gateway asks for, and a random moment more, so that not everybody is back at once.
    pause_ms=$((${retry_after:-0} * 1000 + RANDOM % backoff_ms))
    backoff_ms=$((backoff_ms < 5000 ? backoff_ms * 2 : 10000))
    if [ $((SECONDS + pause_ms / 1000)) -ge "$give_up" ]; then
        echo "not settled: $status $(cat "$work/why")" >&2
        exit 3
    fi
    echo "again in $pause_ms ms: $status $(cat "$work/why")" >&2
    sleep "$((pause_ms / 1000)).$(printf '%03d' $((pause_ms % 1000)))"
done

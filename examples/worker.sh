#!/bin/sh
# A worker for durable runs in nothing but sh and curl.
#
#   OUTLAST_URL=http://127.0.0.1:8080 sh examples/worker.sh [QUEUE]
#
# It claims runs of QUEUE (default: default), does two steps of each and ends them. Kill it wherever you like: another
# one goes on from the last step that was written down. With ONCE=1 it leaves when there is nothing to do.
# What its steps do is at the bottom; docs/worker-protocol.md says what the calls mean.
set -u

url=${OUTLAST_URL:-http://127.0.0.1:8080}
queue=${1:-default}
lease=10
# Random for each process, never the host's name: a worker that was restarted is another worker.
worker=sh-$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')

# post PATH BODY: the answer is in $answer, its status in $status. Every call may be said again, so it is, until the
# server answers.
post() {
  until answer=$(curl -sS -m 70 -w '\n%{http_code}' -H 'content-type: application/json' \
    ${OUTLAST_API_KEY:+-H "authorization: Bearer $OUTLAST_API_KEY"} -d "$2" "$url/v1/$1"); do
    sleep 1
  done
  status=$(printf '%s' "$answer" | tail -n 1)
  answer=$(printf '%s' "$answer" | sed '$d')
}

# field NAME: the first text or number of that name in $answer.
field() {
  printf '%s' "$answer" | grep -o "\"$1\":\(\"[^\"]*\"\|[0-9]*\)" | head -n 1 | cut -d: -f2- | tr -d '"'
}

# Keeps the lease of this run until it is told otherwise, or the worker is gone.
beat() {
  while sleep $((lease / 3)) && kill -0 $$ 2>/dev/null; do
    post "runs/$run/heartbeat" "{\"epoch\":$epoch,\"lease_s\":$lease}"
    [ "$status" = 200 ] || return
  done
}

# step KEY CLASS COMMAND...: does it once, or finds that it was done. Fails if the run is not ours to go on with.
step() {
  key=$1 class=$2
  shift 2
  while :; do
    post "runs/$run/steps/$key/begin" "{\"epoch\":$epoch,\"class\":\"$class\",\"lease_s\":$lease}"
    case $status in
      200) ;;
      409) sleep 1; continue ;;            # somebody is at it, or it is not to be tried yet
      *) return 1 ;;                       # 410: the run is somebody else's by now
    esac
    case $(field do) in
      replay) return 0 ;;                  # done before, by this worker or by one that is gone
      execute) ;;
      *) return 1 ;;                       # parked: a person decides, and whoever claims the run then goes on
    esac
    claim="\"epoch\":$(field epoch),\"attempt\":$(field attempt),\"lease_s\":$lease"
    if result=$("$@" "$(field idempotency_key)"); then
      post "runs/$run/steps/$key/end" "{$claim,\"ok\":\"$result\"}"
    else
      # It may have happened before it failed. The class says what is done about that.
      post "runs/$run/steps/$key/end" "{$claim,\"unknown\":{\"message\":\"the command failed\"}}"
    fi
    [ "$status" = 200 ] || return 1
    case $(field step) in
      done) return 0 ;;
      again | unknown) ;;
      *) return 1 ;;
    esac
  done
}

# What the steps do. Each is given its idempotency key: the same for every attempt, for whoever takes one.
greet() {
  echo "hello from $worker"
}

note() {
  echo "$run $1" >>"${NOTES:-notes.txt}" && echo "noted"
}

wait=25
[ -z "${ONCE:-}" ] || wait=0
while :; do
  post claim "{\"worker\":\"$worker\",\"queues\":[\"$queue\"],\"wait_s\":$wait,\"lease_s\":$lease}"
  case $status in
    200) ;;
    204) [ -z "${ONCE:-}" ] || exit 0; continue ;;
    *) echo "claim: $status $answer" >&2; sleep 2; continue ;;
  esac
  run=$(field id) epoch=$(printf '%s' "$answer" | grep -o '},"epoch":[0-9]*' | head -n 1 | cut -d: -f2)
  beat &
  beating=$!
  if step greet pure greet && step note once note; then
    post "runs/$run/finish" "{\"epoch\":$epoch,\"ok\":\"$run is done\"}"
  fi
  kill $beating 2>/dev/null
done

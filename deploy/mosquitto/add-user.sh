#!/bin/sh
# Give a device, the aggregator or an operator a password at the broker, or a new one.
#
#   deploy/mosquitto/add-user.sh NAME          make a random password
#   deploy/mosquitto/add-user.sh NAME -        read the password from the first line of standard input
#   deploy/mosquitto/add-user.sh --remove NAME
#
# NAME is a device id, or "aggregator", or "operator" (see acl). The hash goes to passwd beside this script, the
# password to ../secrets/NAME.password: copy that file to the device. A broker that runs under compose.yaml is told to
# read the file again; nobody is disconnected. Uses docker, or mosquitto_passwd of this machine (FEDGE_LOCAL=1 forces it).
set -eu

IMAGE=eclipse-mosquitto:2.0.22   # as in compose.yaml
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
deploy=${FEDGE_DEPLOY:-$(dirname -- "$here")}   # where mosquitto/passwd and secrets/ are; another folder in tests
AGGREGATOR_UID=10001   # as in Dockerfile

die() { printf 'add-user.sh: %s\n' "$1" >&2; exit 1; }

use_docker() {
    [ -z "${FEDGE_LOCAL:-}" ] && command -v docker >/dev/null && docker info >/dev/null 2>&1
}

# Both halves run this same text, in the container as root, here as whoever called: $1 = deploy folder, $2 = name, $3 =
# owner of passwd, $4 = owner of the password file; the password on standard input, none to remove the name. No password ever
# stands on a command line, and whoever reads passwd meanwhile sees the old file or the new one.
# shellcheck disable=SC2016  # the variables are the inner shell's
CHANGE='
set -eu
umask 077
new=$(mktemp "$1/mosquitto/passwd.XXXXXX")
trap "rm -f \"$new\"" EXIT
if IFS= read -r password; then
    printf "%s\n" "$password" >"$1/secrets/$2.password"
    [ -z "$4" ] || chown "$4" "$1/secrets/$2.password"
    printf "%s:%s\n" "$2" "$password" >"$new"
    mosquitto_passwd -U "$new"
else
    rm -f "$1/secrets/$2.password"
fi
if [ -f "$1/mosquitto/passwd" ]; then
    grep -v "^$2:" "$1/mosquitto/passwd" >>"$new" || true
fi
[ -z "$3" ] || chown "$3" "$new"
mv "$new" "$1/mosquitto/passwd"
trap - EXIT
'

change() {
    if use_docker; then
        caller="$(id -u):$(id -g)"
        [ "$1" = aggregator ] && caller=$AGGREGATOR_UID   # the container reads it, nobody copies it
        docker run --rm -i --user 0 --network none --entrypoint sh -v "$deploy:/deploy" "$IMAGE" \
            -c "$CHANGE" sh /deploy "$1" 1883:1883 "$caller"
    elif command -v mosquitto_passwd >/dev/null; then
        owner=
        if [ "$(id -u)" = 0 ] && id mosquitto >/dev/null 2>&1; then owner=mosquitto; fi
        sh -c "$CHANGE" sh "$deploy" "$1" "$owner" ""
    else
        die "needs docker (running, and yours to use) or mosquitto_passwd (apt-get install mosquitto)"
    fi
}

reload() {
    command -v docker >/dev/null || return 0
    broker=$(docker ps -q --filter label=com.docker.compose.service=mosquitto \
        --filter "label=com.docker.compose.project.working_dir=$deploy" 2>/dev/null) || return 0
    [ -z "$broker" ] || docker kill --signal HUP "$broker" >/dev/null
}

remove=
if [ "${1:-}" = --remove ]; then remove=yes; shift; fi
name=${1:-}
case $name in
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    -*) die "there is no option $name; see --help" ;;
    '' | *[!A-Za-z0-9_-]*) die "NAME must be letters, digits, _ and - (it is a level of a topic)" ;;
esac
[ "${#name}" -le 64 ] || die "NAME is longer than 64 characters"

mkdir -p "$deploy/mosquitto" "$deploy/secrets"
chmod 700 "$deploy/secrets"
if [ -n "$remove" ]; then
    change "$name" </dev/null
    printf 'removed %s\n' "$name"
else
    case ${2:-} in
        '') password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n') ;;
        -) IFS= read -r password || die "no password on standard input" ;;
        *) die "a password is not taken from the command line, where others could read it; use -" ;;
    esac
    [ -n "$password" ] || die "the password is empty"
    printf '%s\n' "$password" | change "$name"
    printf 'password of %s: %s\n' "$name" "$deploy/secrets/$name.password"
fi
reload

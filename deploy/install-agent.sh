#!/bin/bash
# Install the agent on 64-bit Debian or Raspberry Pi OS (12 or newer), or bring it up to date. Run it as often as you like.
#
#   sudo ./install-agent.sh [--bundle FILE | --token FILE] [--config FILE] [--password FILE] [--dry-run] WHEEL_OR_SOURCE_FOLDER
#   sudo ./install-agent.sh --uninstall [--purge] [--dry-run]
#
#   --bundle FILE     what `fedge enroll` has written: it is checked, and becomes /etc/fedge/identity, and agent.toml if
#                     there is none yet and no --config
#   --token FILE      a file with the line that `fedge ca token` has printed, or /dev/stdin: this device makes its keys, asks
#                     with it, and waits until an operator has approved the fingerprint that is shown
#   --config FILE     becomes /etc/fedge/agent.toml (otherwise the annotated agent.toml beside this script, and only
#                     if there is none yet)
#   --password FILE   becomes /etc/fedge/password
#   --uninstall       remove the service and the program; configuration and state stay
#   --purge           ... and these, and the user fedge, too: updates that wait for their verdict are lost
#   --dry-run         say what would be done, and do nothing
#
# FEDGE_EXTRAS chooses what else is installed (default "inference": ONNX export and sessions; "" trains only). With a
# bundle, or where there was one before, "identity" comes along.
set -euo pipefail

VENV=/opt/fedge
ETC=/etc/fedge
STATE=/var/lib/fedge-agent
UNIT=/etc/systemd/system/edge-agent.service
AGGREGATOR_UNIT=/etc/systemd/system/aggregator.service
EXTRAS=${FEDGE_EXTRAS-inference}
here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

die() { printf 'install-agent.sh: %s\n' "$1" >&2; exit 1; }
say() { printf '%s\n' "$1"; }

finish() { if [ -n "$dry_run" ]; then say "(dry run: nothing was done)"; else say "$1"; fi; }

# Everything that changes the system goes through here.
run() {
    if [ -n "$dry_run" ]; then printf '+'; printf ' %q' "$@"; printf '\n'; else "$@"; fi
}

read_arguments() {
    bundle='' token='' config='' password='' source='' uninstall='' purge='' dry_run=''
    while [ $# -gt 0 ]; do
        case $1 in
            --bundle) bundle=${2:?--bundle needs a file}; shift ;;
            --token) token=${2:?--token needs a file}; shift ;;
            --config) config=${2:?--config needs a file}; shift ;;
            --password) password=${2:?--password needs a file}; shift ;;
            --uninstall) uninstall=yes ;;
            --purge) purge=yes ;;
            --dry-run) dry_run=yes ;;
            -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
            -*) die "unknown option $1; see --help" ;;
            *) [ -z "$source" ] || die "one wheel or source folder, not also $1"; source=$1 ;;
        esac
        shift
    done
    [ -z "$purge" ] || [ -n "$uninstall" ] || die "--purge goes with --uninstall"
    [ -z "$uninstall" ] || [ -z "$source" ] || die "--uninstall takes no wheel"
}

check_machine() {
    [ -f /etc/debian_version ] || die "this is not Debian or Raspberry Pi OS"
    command -v systemctl >/dev/null || die "there is no systemd here"
    [ "$(getconf LONG_BIT)" = 64 ] || die "needs a 64-bit system: there are no wheels for 32 bits"
    [ -n "$dry_run" ] || [ "$(id -u)" = 0 ] || die "must run as root (sudo)"
}

check_files() {
    [ -n "$source" ] || die "needs a wheel or a source folder; see --help"
    case $source in
        *.whl) [ -f "$source" ] || die "$source: no such wheel" ;;
        *) [ -f "$source/pyproject.toml" ] || die "$source: neither a wheel nor a folder with pyproject.toml" ;;
    esac
    [ -z "$bundle" ] || [ -f "$bundle" ] || die "$bundle: no such file"
    [ -z "$config" ] || [ -f "$config" ] || die "$config: no such file"
    [ -z "$password" ] || [ -f "$password" ] || die "$password: no such file"
}

install_python() {
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        run apt-get update -qq
        run apt-get install -y -qq --no-install-recommends python3 python3-venv
    fi
    [ -n "$dry_run" ] || python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "needs Python 3.11 or newer (Debian 12), found $(python3 --version)"
}

create_user() {
    id fedge >/dev/null 2>&1 ||
        run useradd --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin fedge
}

# A source folder is copied first, so that building leaves nothing of root's in it.
copy_source() {
    case $source in
        *.whl) package=$source ;;
        *)
            package=$(mktemp -d)
            trap 'rm -rf "$package"' EXIT
            [ -n "$dry_run" ] || tar -C "$source" --exclude=./.git --exclude=./.venv -cf - . | tar -C "$package" -xf -
            ;;
    esac
}

install_program() {
    local constraints=() folder=$source
    if [ -n "$bundle$token" ] || [ -d "$ETC/identity" ]; then EXTRAS=${EXTRAS:+$EXTRAS,}identity; fi
    [ -d "$folder" ] || folder=$(dirname -- "$source")
    [ ! -f "$folder/constraints.txt" ] || constraints=(-c "$folder/constraints.txt")
    copy_source
    say "installing the program into $VENV: on a small device this takes minutes"
    [ -x "$VENV/bin/python" ] || run python3 -m venv "$VENV"
    # Twice: first what it needs; then itself whatever its version says, since a rebuilt wheel often has the same number.
    run "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --upgrade \
        "${constraints[@]}" "fedge${EXTRAS:+[$EXTRAS]} @ file://$(realpath "$package")"
    run "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-deps --force-reinstall \
        "$(realpath "$package")"
}

install_config() {
    # Its own: the agent puts a renewed identity in the place of the old one.
    run install -d -o fedge -g fedge -m 0750 "$ETC"
    if [ -n "$config" ]; then
        run install -o root -g fedge -m 0640 "$config" "$ETC/agent.toml"
    fi
    if [ -n "$bundle" ]; then
        run "$VENV/bin/fedge" agent adopt "$bundle" --into "$ETC" --group fedge ||
            die "$bundle was not taken (above), and nothing that it brings was changed"
    elif [ -n "$token" ]; then
        run "$VENV/bin/fedge" agent enroll - --etc "$ETC" --group fedge <"$token" ||
            die "this device is not enrolled (above); run this again with the same token, and it goes on"
    elif [ ! -e "$ETC/agent.toml" ]; then
        run install -o root -g fedge -m 0640 "$here/agent.toml" "$ETC/agent.toml"
    fi
    if [ -n "$bundle$token" ]; then run chown -R fedge:fedge "$ETC/identity"; fi
    [ -z "$password" ] || run install -o root -g fedge -m 0640 "$password" "$ETC/password"
}

install_service() {
    run install -o root -g root -m 0644 "$here/edge-agent.service" "$UNIT"
    if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ]; then
        run install -D -o root -g root -m 0644 "$here/backoff.conf" "$UNIT.d/backoff.conf"
    fi
    run systemctl daemon-reload
    run systemctl enable --quiet edge-agent
    # Not `enable --now`: that would leave the old program running after an update.
    run systemctl restart edge-agent
}

check_config() {
    run runuser -u fedge -- "$VENV/bin/fedge" agent run --config "$ETC/agent.toml" --check ||
        die "$ETC/agent.toml does not hold (above); mend it and run this again"
}

remove() {
    if [ -e "$UNIT" ]; then
        run systemctl disable --quiet --now edge-agent
        run rm -rf "$UNIT" "$UNIT.d"
        run systemctl daemon-reload
    fi
    if [ -e "$AGGREGATOR_UNIT" ]; then
        say "this machine is a server too: $VENV, $ETC and the user fedge stay"
    else
        run rm -rf "$VENV"
    fi
    if [ -n "$purge" ]; then
        run rm -rf "$STATE" "$ETC/agent.toml"
        if [ ! -e "$AGGREGATOR_UNIT" ]; then
            run rm -rf "$ETC"
            ! id fedge >/dev/null 2>&1 || run userdel fedge
        fi
    fi
    finish "removed${purge:+, with its configuration and state}"
}

read_arguments "$@"
check_machine
if [ -n "$uninstall" ]; then
    remove
    exit 0
fi
check_files
install_python
create_user
install_program
install_config
check_config
install_service
finish "installed; its configuration: $ETC/agent.toml, its log: journalctl -u edge-agent"

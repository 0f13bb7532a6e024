#!/bin/sh
# See that these Debian packages are installed: deploy/need.sh PACKAGE...
# Installs what is missing when that needs no password; otherwise says in one line what to install. No service of a
# package is started, now or with the machine: tests start their own, on ports of their own.
set -eu
missing=
for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=
elif sudo -n true 2>/dev/null; then
    as_root=sudo
else
    echo "please install:$missing  (sudo apt-get install$missing)" >&2
    exit 1
fi
echo "installing with apt-get:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d # what Debian's packages ask before they start anything
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    trap '$as_root rm -f $policy' EXIT
    $as_root chmod 755 $policy
fi
$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of packages
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
if [ -d /run/systemd/system ]; then
    for package in $missing; do
        for unit in $(dpkg-query -L "$package" | sed -n 's#^\(/usr\)\{0,1\}/lib/systemd/system/\([^/@]*\.service\)$#\2#p'); do
            [ "$package" = systemd ] || $as_root systemctl disable --quiet "$unit"
        done
    done
fi

#!/bin/sh
# See that these Debian packages are installed: deploy/need.sh PACKAGE...
# Installs what is missing when that needs no password; otherwise says in one line what to install.
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
$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of packages
$as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null

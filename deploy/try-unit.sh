#!/bin/bash
# Try edge-agent.service in a booted systemd, in a container that is thrown away afterwards.
#
#   sudo deploy/try-unit.sh ROOTFS [WHEEL_OR_SOURCE_FOLDER]
#
# ROOTFS is a Debian tree; one is made there (five minutes, 300 MB) if the folder does not exist yet. It is only read: the
# container runs on a copy in memory. With a wheel or a source folder install-agent.sh installs the real thing; without one a
# stand-in for `fedge` that speaks to systemd through edge_agent/notify.py is tried instead.
#
# Needs root, and from apt: debootstrap systemd-container. Prints one line for each thing tried; the exit code is the
# number of those that failed. What is tried:
#   the service becomes active, as user fedge, with its state directory, nice; it says what it is doing
#   a hung agent (SIGSTOP) is killed by the watchdog and started again
#   kill -9 is followed by a new start
#   a stop is clean; a bad configuration (exit code 2) is not tried again; a good one brings the service back
#   with the real program: NumPy and onnxruntime work under the unit's sandbox
set -euo pipefail

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
rootfs=${1:?usage: try-unit.sh ROOTFS [WHEEL_OR_SOURCE_FOLDER]}
source=${2:-}
[ "$(id -u)" = 0 ] || { echo "try-unit.sh: must run as root" >&2; exit 1; }

[ -d "$rootfs" ] || debootstrap --variant=minbase \
    --include=systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates bookworm "$rootfs" >/dev/null

work=$(mktemp -d)
trap 'umount "$work/root" 2>/dev/null || true; umount "$work" 2>/dev/null || true; rmdir "$work" 2>/dev/null || rm -rf "$work"' EXIT
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/inner" "$work/root"
mount -t overlay overlay -o "lowerdir=$rootfs,upperdir=$work/upper,workdir=$work/inner" "$work/root"
root=$work/root

install_real() {
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    # Behind a proxy with an authority of its own, pip needs what this machine trusts.
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    cp -r "$here" "$root/root/deploy"
    if [ -d "$source" ]; then
        mkdir "$root/root/package"
        tar -C "$source" --exclude=./.git --exclude=./.venv -cf - . | tar -C "$root/root/package" -xf -
        set -- /root/package
    else
        cp "$source" "$root/root/"
        set -- "/root/$(basename "$source")"
    fi
    # In a chroot systemctl enables, and leaves starting to the boot.
    chroot "$root" env SYSTEMD_OFFLINE=1 /root/deploy/install-agent.sh "$@"
}

install_stand_in() {
    chroot "$root" useradd --system --user-group --no-create-home --home-dir /var/lib/fedge-agent fedge
    install -D "$here/../edge_agent/notify.py" "$root/opt/fedge/lib/edge_agent/notify.py"
    install -d "$root/opt/fedge/bin"
    cat >"$root/opt/fedge/bin/fedge" <<'PYTHON'
#!/usr/bin/python3
"""What `fedge agent run --config FILE` looks like to systemd."""
import signal, sys, threading, tomllib
sys.path.insert(0, "/opt/fedge/lib")
from edge_agent import notify
if "nonsense" in tomllib.load(open(sys.argv[-1], "rb")):
    sys.exit(2)
open("started", "a").write("x")
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
notify.ready("waiting for a job")
while not stop.wait(notify.watchdog_interval_s()):
    notify.alive()
notify.stopping()
PYTHON
    chmod 0755 "$root/opt/fedge/bin/fedge"
    install -D -m 0644 "$here/agent.toml" "$root/etc/fedge/agent.toml"
    install -m 0644 "$here/edge-agent.service" "$root/etc/systemd/system/"
    chroot "$root" systemctl enable --quiet edge-agent
}

# What the container runs once it has booted.
write_trial() {
    # Minutes become seconds; nothing else of the unit is changed.
    install -d "$root/etc/systemd/system/edge-agent.service.d"
    printf '[Service]\nWatchdogSec=6\nTimeoutStopSec=4\nRestartSec=1\n' \
        >"$root/etc/systemd/system/edge-agent.service.d/zz-trial.conf"
    cat >"$root/root/trial.sh" <<'TRIAL'
#!/bin/bash
failed=0
check() { if [ "$2" = "$3" ]; then echo "ok      $1: $2"; else echo "FAILED  $1: $2, not $3"; failed=$((failed + 1)); fi; }
show() { systemctl show edge-agent --property="$1" --value; }
within() { for _ in $(seq "$1"); do eval "$2" && return 0; sleep 1; done; return 1; }
active() { [ "$(systemctl is-active edge-agent)" = active ] && [ "$(show MainPID)" != "$1" ]; }

within 60 'active 0'
pid=$(show MainPID)
check "after the boot the service is" "$(systemctl is-active edge-agent)" active
check "it runs as" "$(stat -c %U "/proc/$pid")" fedge
check "its niceness is" "$(cut -d' ' -f19 "/proc/$pid/stat")" 10
check "its state directory is" "$(stat -c '%U:%G %a' /var/lib/fedge-agent)" "fedge:fedge 750"
echo "        it says: $(show StatusText)"

starts=$(show NRestarts)
kill -STOP "$pid"
within 40 "active $pid"
check "hung, it was ended by" "$(journalctl -u edge-agent -o cat | grep -o "with result 'watchdog'" | tail -1)" "with result 'watchdog'"
check "and started again" "$(systemctl is-active edge-agent), $(($(show NRestarts) - starts)) more" "active, 1 more"

pid=$(show MainPID)
kill -KILL "$pid"
within 40 "active $pid"
check "killed, it is started again" "$(systemctl is-active edge-agent)" active

pid=$(show MainPID)
sleep 15
check "left alone for two watchdog periods, it is the same process" "$(show MainPID)" "$pid"

systemctl stop edge-agent
check "stopped, its result is" "$(show Result), exit code $(show ExecMainStatus)" "success, exit code 0"

cp -p /etc/fedge/agent.toml /root/good.toml
sed -i '1i nonsense = 1' /etc/fedge/agent.toml
systemctl reset-failed edge-agent
systemctl restart edge-agent 2>/dev/null
sleep 6
check "with a bad configuration the service is" \
    "$(systemctl is-active edge-agent), exit code $(show ExecMainStatus), restarts $(show NRestarts)" \
    "failed, exit code 2, restarts 0"
journalctl -u edge-agent -o cat | grep nonsense | tail -1 | sed 's/^/        it says: /'
cp -p /root/good.toml /etc/fedge/agent.toml
systemctl restart edge-agent
check "with a good one again" "$(systemctl is-active edge-agent)" active

if [ -f /root/sandbox_trial.py ]; then
    sed -e 's#^ExecStart=.*#ExecStart=/opt/fedge/bin/python /var/lib/fedge-agent/sandbox_trial.py#' -e 's/^Type=.*/Type=oneshot/' \
        -e '/^Restart/d; /^Watchdog/d; /^NotifyAccess/d' /etc/systemd/system/edge-agent.service \
        >/etc/systemd/system/sandbox-trial.service
    install -o fedge /root/sandbox_trial.py /var/lib/fedge-agent/sandbox_trial.py
    systemctl daemon-reload
    systemctl start sandbox-trial
    check "NumPy and onnxruntime in the sandbox" "$(journalctl -u sandbox-trial -o cat | grep -o 'computed.*')" "computed with both"
    journalctl -u sandbox-trial -o cat | grep -iE 'error|traceback|denied' | head -5
fi
[ "$failed" = 0 ] || journalctl -u edge-agent -o cat | tail -40
systemctl exit "$failed"
TRIAL
    cat >"$root/etc/systemd/system/trial.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /root/trial.sh
StandardOutput=file:/root/report
StandardError=inherit
TimeoutStartSec=300
UNIT
    install -d "$root/etc/systemd/system/default.target.d" "$root/etc/systemd/system/default.target.wants"
    ln -sf ../trial.service "$root/etc/systemd/system/default.target.wants/trial.service"
}

write_sandbox_trial() {
    cat >"$root/root/sandbox_trial.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
a = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
node = helper.make_node("MatMul", ["a", "a"], ["b"])
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [300, 300])
graph = helper.make_graph([node], "square", [value("a")], [value("b")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
(b,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"a": a})
np.linalg.svd(a)
assert np.allclose(b, a @ a, atol=1e-2)
print("computed with both")
PYTHON
}

if [ -n "$source" ]; then
    install_real
    [ "${FEDGE_EXTRAS-inference}" != inference ] || write_sandbox_trial
else
    install_stand_in
fi
write_trial
# The report comes through a file: a container without a terminal may have no console to write to.
code=0
systemd-nspawn --quiet -D "$root" --boot --register=no --keep-unit --private-network --console=pipe \
    </dev/null >/dev/null 2>&1 || code=$?
cat "$root/root/report"
exit "$code"

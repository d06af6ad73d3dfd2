#!/bin/sh
# Installs what building, testing and measuring berth needs beyond Rust, gcc, Python and git: Debian packages, and
# cargo-nextest when it is missing. Safe to run again; starts no service.
#
#   dev/setup.sh           for `make demo` and `make test`
#   dev/setup.sh bench     also what `make bench` compares with
set -eu

# registry and image tools of the tests; the Go daemon, its ctr and the runtimes that berth must get along with; the
# standard CNI plugins and what shows networks from outside
packages="busybox-static docker-registry containerd runc crun debootstrap zstd xz-utils ca-certificates kmod mount procps e2fsprogs bsdutils attr skopeo umoci containernetworking-plugins nftables iptables"

missing=
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done

if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || { echo "setup: not root, cannot install:$missing" >&2; exit 1; }
    export DEBIAN_FRONTEND=noninteractive
    # Packages may ask to start the service they bring; 101 forbids it for the length of this installation. A policy
    # of the machine's own stays as it is.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -q </dev/null
    # shellcheck disable=SC2086 # a list of words on purpose
    apt-get install -q -y --no-install-recommends $missing </dev/null
fi

if ! cargo nextest --version >/dev/null 2>&1; then
    cargo install --locked cargo-nextest
fi

# What the machine must have, each said in one line before anything is started. Sourced by `cluster`.

fail() { echo "cluster: $*" >&2; exit 1; }

check_root() { [ "$(id -u)" = 0 ] || fail "namespaces and cgroups need root: sudo $0 $*"; }

check_go() {
  command -v go >/dev/null || fail "Go 1.26 or newer is needed to build Kubernetes; there is no 'go' in PATH"
  local have; have=$(go env GOVERSION | sed 's/^go//')
  printf '1.26\n%s\n' "$have" | sort -VC || fail "Go 1.26 or newer is needed to build Kubernetes; this is $have"
}

check_disk() { # GIGABYTES
  mkdir -p "$CACHE"
  local free; free=$(df --output=avail -BG "$CACHE" | tail -1 | tr -dc 0-9)
  [ "$free" -ge "$1" ] || fail "$1 GB of free disk are needed in $CACHE; $free GB are free"
}

check_kernel() {
  unshare --net true 2>/dev/null || fail "the kernel (or the container this runs in) makes no network namespaces"
  unshare --net sh -c 'ip link add check0 type bridge && ip link add check1 type veth peer name check2' 2>/dev/null ||
    fail "the kernel has no bridge or no veth devices"
  unshare --net nft add table ip posthof 2>/dev/null || fail "the kernel has no nftables"
  grep -qw overlay /proc/filesystems || modprobe -q overlay 2>/dev/null || fail "the kernel has no overlayfs"
  [ -d /sys/fs/cgroup/pids ] || [ -f /sys/fs/cgroup/cgroup.controllers ] || fail "cgroups are not mounted at /sys/fs/cgroup"
  [ -w /sys/fs/cgroup ] || fail "cgroups are mounted read-only"
}

packages() { # DEBIAN PACKAGES: install what is missing
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || fail "these packages of Debian are missing: ${missing[*]}"
  "$HERE/../../scripts/apt-quietly" update
  "$HERE/../../scripts/apt-quietly" install --no-install-recommends "${missing[@]}"
}

check() {
  check_root "$@"
  packages iproute2 nftables containernetworking-plugins openssl procps python3-minimal
  check_kernel
  check_disk 3
}

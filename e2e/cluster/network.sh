# Each node is a network namespace of its own, with addresses from 198.18.0.0/15 (the benchmark range). Nothing is
# routed outside, and the machine's own addresses, routes and rules stay as they are. Sourced by `cluster`.
#
#   node-a (198.18.0.10)  br0 -+- v-node-b  ---- eth0  node-b (198.18.0.11)
#    control plane, DNS        +- v-outside ---- eth0  outside (198.18.0.100): a machine that is not in the cluster

API=198.18.0.10 SERVICES=198.19.0.0/20 PODS=198.18.64.0/18
declare -A ADDRESS=([node-a]=198.18.0.10 [node-b]=198.18.0.11 [outside]=198.18.0.100)
declare -A POD_RANGE=([node-a]=198.18.64.0/24 [node-b]=198.18.65.0/24)

namespace() { echo "posthof-$NAME-$1"; }

enter() { # NODE CMD...: replaces this process. nsenter, for `ip netns exec` remounts /sys and the kubelet loses its cgroups
  local node=$1 flags=(--net=/run/netns/"$(namespace "$1")")
  shift
  [ -f "$RUN/$node/holder" ] && flags+=(--mount="/proc/$(cat "$RUN/$node/holder")/ns/mnt" --wdns="$PWD")
  exec nsenter "${flags[@]}" "$@"
}

spawn() { # NODE NAME CMD...: in the background, a session of its own, log and pid below run/NODE
  local node=$1 name=$2
  shift 2
  (enter "$node" setsid -w "$@") >>"$RUN/$node/$name.log" 2>&1 </dev/null &
  echo $! >"$RUN/$node/$name.pid"
}

make_namespace() { # NODE
  local node=$1 name gate
  name=$(namespace "$node") gate=$(namespace node-a)
  mkdir -p "$RUN/$node"
  ip netns add "$name"
  ip -n "$name" link set lo up
  if [ "$node" = node-a ]; then
    ip -n "$name" link add br0 type bridge
    ip -n "$name" link set br0 up
    ip -n "$name" link add up0 type veth peer name up1 # gives the bridge a carrier
    ip -n "$name" link set up1 up
    ip -n "$name" link set up0 master br0 up
    ip -n "$name" addr add "${ADDRESS[node-a]}/24" dev br0
    ip -n "$name" route add default via 198.18.0.1 dev br0 # leads nowhere; the kubelet wants one
  else
    ip -n "$gate" link add "v-$node" type veth peer name eth0 netns "$name"
    ip -n "$gate" link set "v-$node" master br0 up
    ip -n "$name" addr add "${ADDRESS[$node]}/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" route add default via "${ADDRESS[node-a]}"
  fi
  nsenter --net=/run/netns/"$name" sysctl -qw net.ipv4.ip_forward=1
  [ "$node" = outside ] || hold_mounts "$node"
}

hold_mounts() { # NODE: a mount namespace of its own, so that each node can mount its own view of a shared volume
  spawn "$1" holder unshare --mount --propagation private \
    bash -c "mount --make-rshared / && echo \$\$ >'$RUN/$1/holder.new' && mv '$RUN/$1/holder.new' '$RUN/$1/holder' && exec sleep infinity"
  wait_until 20 "the mounts of $1" test -f "$RUN/$1/holder"
}

routes() {
  local to from
  for to in node-a node-b; do
    for from in node-a node-b outside; do
      [ "$to" = "$from" ] || ip -n "$(namespace "$from")" route add "${POD_RANGE[$to]}" via "${ADDRESS[$to]}"
    done
  done
  ip -n "$(namespace outside)" route add "$SERVICES" via "${ADDRESS[node-a]}"
}

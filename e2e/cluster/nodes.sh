# The processes of a cluster: control plane on node-a, then containerd, kubelet and kube-proxy of each node.
# Sourced by `cluster`.

start_etcd() {
  spawn node-a etcd "$BIN/etcd" --data-dir "$RUN/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
}

start_apiserver() {
  # preferred-address-types: else exec and logs ask DNS for a node's name. aggregator routing and the mutating/validating
  # plug-ins are the defaults. Metrics of requests are what the scenarios count writes by.
  spawn node-a apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --advertise-address="$API" \
    --bind-address="$API" --secure-port=6443 --service-cluster-ip-range="$SERVICES" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --service-account-issuer=https://kubernetes.default.svc --authorization-mode=Node,RBAC \
    --kubelet-client-certificate="$PKI/admin.crt" --kubelet-client-key="$PKI/admin.key" \
    --kubelet-preferred-address-types=InternalIP --allow-privileged=true --enable-admission-plugins=NodeRestriction
  wait_until 120 "the API server" kubectl get --raw /readyz
}

start_control_plane() {
  start_etcd
  start_apiserver
  spawn node-a controller-manager "$BIN/kube-controller-manager" --kubeconfig "$RUN/controller-manager.kubeconfig" \
    --service-account-private-key-file "$PKI/sa.key" --root-ca-file "$PKI/ca.crt" \
    --use-service-account-credentials --leader-elect=false --cluster-signing-cert-file "$PKI/ca.crt" \
    --cluster-signing-key-file "$PKI/ca.key" --node-monitor-grace-period=20s
  spawn node-a scheduler "$BIN/kube-scheduler" --kubeconfig "$RUN/scheduler.kubeconfig" --leader-elect=false
}

start_dns() {
  cat >"$RUN/Corefile" <<X
.:53 {
  bind $API
  kubernetes cluster.local {
    kubeconfig $RUN/admin.kubeconfig
  }
  cache 5
}
X
  spawn node-a coredns "$BIN/coredns" -conf "$RUN/Corefile"
}

start_volumes() {
  kubectl apply -f "$HERE/classes.yaml" >/dev/null
  spawn node-a volumes python3 "$HERE/volumes.py" "$RUN/admin.kubeconfig" "$RUN/volumes" "$(shared_root)"
}

cgroup() { echo "posthof-$NAME-$1"; }

make_cgroup() { # NODE: in every hierarchy, so that the kubelet finds its root
  local hierarchy file
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    echo "+cpu +cpuset +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    mkdir -p "/sys/fs/cgroup/$(cgroup "$1")"
    echo 400 >"/sys/fs/cgroup/$(cgroup "$1")/cpu.weight" 2>/dev/null || true
    return
  fi
  for hierarchy in /sys/fs/cgroup/*/; do
    [ "$hierarchy" = /sys/fs/cgroup/unified/ ] || mkdir -p "$hierarchy$(cgroup "$1")"
  done
  # Four times what one busy process of the machine counts: pods with small requests are not starved by a compiler.
  [ ! -d /sys/fs/cgroup/cpu ] || echo 4096 >"/sys/fs/cgroup/cpu/$(cgroup "$1")/cpu.shares"
  for file in cpuset.cpus cpuset.mems; do
    cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$(cgroup "$1")/$file"
  done
}

configure_containerd() { # NODE. restrict_oom_score_adj: where root has no CAP_SYS_RESOURCE, no pod starts without it
  local d=$RUN/$1
  cat >"$d/containerd.toml" <<X
version = 3
root = "$d/containerd/root"
state = "$d/containerd/state"
[grpc]
  address = "$d/containerd.sock"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$d/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "docker.io/local/pause:1"
X
  cat >"$d/cni/10-posthof.conflist" <<X
{"cniVersion": "1.0.0", "name": "posthof", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "${POD_RANGE[$1]}"}]], "routes": [{"dst": "0.0.0.0/0"}],
           "dataDir": "$d/cni-state"}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
X
}

configure_kubelet() { # NODE
  local d=$RUN/$1
  cat >"$d/kubelet.yaml" <<X
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /$(cgroup "$1")
containerRuntimeEndpoint: unix://$d/containerd.sock
clusterDNS: ["$API"]
clusterDomain: cluster.local
resolvConf: ""
authentication: {x509: {clientCAFile: $PKI/ca.crt}, webhook: {enabled: true}, anonymous: {enabled: false}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$1.crt
tlsPrivateKeyFile: $PKI/$1.key
failSwapOn: false
enforceNodeAllocatable: []
evictionHard: {imagefs.available: "1%", nodefs.available: "1%"}
podLogsDir: $d/pod-logs
volumePluginDir: $d/volume-plugins
nodeStatusUpdateFrequency: 4s
X
}

start_node() { # NODE
  local n=$1 d=$RUN/$1
  mkdir -p "$d/containerd" "$d/kubelet" "$d/cni"
  make_cgroup "$n"
  configure_containerd "$n"
  configure_kubelet "$n"
  PATH=$BIN:$PATH spawn "$n" containerd "$BIN/containerd" -c "$d/containerd.toml"
  wait_until 60 "containerd of $n" ctr "$n" version
  import "$n" "$RUN/pause.tar"
  spawn "$n" kubelet "$BIN/kubelet" --config "$d/kubelet.yaml" --kubeconfig "$RUN/$n.kubeconfig" \
    --root-dir "$d/kubelet" --hostname-override "$n" --node-ip "${ADDRESS[$n]}"
  spawn "$n" proxy "$BIN/kube-proxy" --kubeconfig "$RUN/proxy.kubeconfig" --proxy-mode=nftables \
    --hostname-override "$n" --cluster-cidr="$PODS" --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

nodes_ready() { [ "$(kubectl get nodes --no-headers | awk '$2 == "Ready"' | wc -l)" = 2 ]; }

ctr() { # NODE ARGUMENTS...
  local node=$1
  shift
  (enter "$node" "$BIN/ctr" -a "$RUN/$node/containerd.sock" -n k8s.io "$@")
}

import() { # NODE ARCHIVE; without --local the archive goes through containerd's transfer service and must be readable to it
  ctr "$1" images import --local "$2" >"$RUN/$1/import.log" 2>&1 || { cat "$RUN/$1/import.log" >&2; return 1; }
}

# ---------------------------------------------------------------- who belongs to a node
in_network() { # NODE: process ids in its network namespace
  ip netns pids "$(namespace "$1")" 2>/dev/null || true
}

in_cgroup() { # NODE: process ids of its pods, in v1 (pids) or v2
  local root
  for root in /sys/fs/cgroup/pids /sys/fs/cgroup; do
    [ -d "$root/$(cgroup "$1")" ] && find "$root/$(cgroup "$1")" -name cgroup.procs -exec cat {} + 2>/dev/null
  done
  true
}

daemons() { # NODE: kubelet, containerd, shims, proxy, pods; not the control plane and not the holder
  local pid
  in_cgroup "$1"
  for pid in $(in_network "$1"); do
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q -e "$RUN/$1/" -e "kube-proxy.*--hostname-override $1" && echo "$pid"
  done
  true
}

signal_node() { # NODE SIGNAL
  local pids
  pids=$(daemons "$1" | sort -un)
  [ -z "$pids" ] || kill "-$2" $pids 2>/dev/null || true
}

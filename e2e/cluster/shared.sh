# The shared volume of class rwx: JuiceFS, mounted once per node through FUSE, so that the nodes see each other's files
# as two machines do: by close-to-open, through caches of their own. Sourced by `cluster`.
#
# Metadata is in a Redis on node-a that syncs each command (a killed one loses nothing it answered), data in a folder of
# the machine. Both mounts have the same path, each in its node's own mount namespace. node-b reaches the metadata
# through its veth: a node that is cut off loses the volume, too. Without /dev/fuse the class is a plain folder.

META=198.18.0.10:6390

has_fuse() { [ -c /dev/fuse ]; }

shared_root() { # where the folders of claims of class rwx are, on each node
  if has_fuse; then echo "$RUN/shared/mount/claims"; else echo "$RUN/volumes-rwx"; fi
}

install_shared() {
  has_fuse || { echo "cluster: no /dev/fuse: storage class rwx is a plain folder, not a network file system"; return 0; }
  packages redis-server fuse3
  "$HERE/../../scripts/juicefs" "$CACHE/juicefs" || fail "JuiceFS cannot be installed; see scripts/juicefs"
}

juicefs() { # NODE VERB ARGUMENTS...: in the node's network and mounts
  local node=$1
  shift
  (enter "$node" env USER=root "$CACHE/juicefs/bin/juicefs" --no-agent "$@")
}

start_metadata() {
  mkdir -p "$RUN/shared/redis" "$RUN/shared/data"
  spawn node-a metadata redis-server --bind "${META%:*}" --port "${META#*:}" --protected-mode no --dir "$RUN/shared/redis" \
    --appendonly yes --appendfsync always --save "" --daemonize no
  wait_until 30 "the metadata server" metadata_answers
}

metadata_answers() { enter_quietly node-a redis-cli -h "${META%:*}" -p "${META#*:}" ping | grep -q PONG; }

enter_quietly() { (enter "$@") 2>/dev/null; }

mount_shared() { # NODE. The cache folder names the node, so that the client is one of its processes (see `daemons`)
  mkdir -p "$RUN/shared/mount"
  USER=root spawn "$1" juicefs "$CACHE/juicefs/bin/juicefs" --no-agent mount --no-usage-report --no-syslog --backup-meta 0 \
    --metrics 127.0.0.1:0 --cache-dir "$RUN/$1/juicefs-cache" --cache-size 200 --free-space-ratio 0.01 \
    "redis://$META/1?max-retry-backoff=500ms" "$RUN/shared/mount"
  wait_until 60 "the shared volume on $1" is_shared_mounted "$1"
}

is_shared_mounted() { # NODE: two plain folders would pass for two mounts
  enter_quietly "$1" grep -q " $RUN/shared/mount fuse.juicefs " /proc/self/mounts &&
    enter_quietly "$1" stat -f "$RUN/shared/mount"
}

start_shared() {
  local node
  if ! has_fuse; then mkdir -p "$(shared_root)"; return; fi
  start_metadata
  juicefs node-a format --storage file --bucket "$RUN/shared/data" --trash-days 0 "redis://$META/1" shared \
    >"$RUN/shared/format.log" 2>&1 || { cat "$RUN/shared/format.log" >&2; fail "the shared volume could not be made"; }
  for node in node-a node-b; do mount_shared "$node"; done
  (enter node-a mkdir -p "$(shared_root)")
}

release_shared() { # a client that is killed while a thread of its own asks the mount would wait for itself for ever
  local node
  for node in node-a node-b; do
    [ -f "$RUN/$node/holder" ] || continue
    enter_quietly "$node" grep -q " $RUN/shared/mount fuse.juicefs " /proc/self/mounts || continue
    enter_quietly "$node" umount -f "$RUN/shared/mount" || true
  done
}

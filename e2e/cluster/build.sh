# Binaries from Go modules: one small module per product (its go.mod has `tool` lines, its go.sum is committed), one
# folder of binaries per product in the cache, named after the hash of its go.mod and go.sum. Sourced by `cluster`.

PRODUCTS=(kubernetes etcd containerd runc coredns helm)

store() { # PRODUCT: where its binaries are
  echo "$CACHE/bin/$1-$(cat "$HERE/$1"/* | sha256sum | cut -c1-12)"
}

version_of() { # PRODUCT MODULE: the version its go.mod names
  sed -n "s#^\(require \)\?\s*$2 \(v[^ ]*\).*#\2#p" "$HERE/$1/go.mod" | head -1
}

is_built() { [ -f "$(store "$1")/complete" ]; }

build() {
  local product missing=()
  for product in "${PRODUCTS[@]}" pause; do is_built "$product" || missing+=("$product"); done
  if [ ${#missing[@]} -gt 0 ]; then
    check_go
    check_disk 12
    packages libseccomp-dev pkg-config gcc libc6-dev
    for product in "${missing[@]}"; do
      local from=$SECONDS
      echo "cluster: building $product"
      build_one "$product"
      echo "cluster: $product built in $((SECONDS - from)) s"
    done
  fi
  BIN=$RUN/bin
  rm -rf "$BIN.new"
  mkdir -p "$BIN.new"
  for product in "${PRODUCTS[@]}" pause; do ln -sf "$(store "$product")"/* "$BIN.new/"; done
  rm -rf "$BIN"
  mv "$BIN.new" "$BIN"
}

build_one() { # PRODUCT, into a folder that gets its name when it is whole
  local product=$1 out new flags="-s -w" minor
  out=$(store "$product")
  new=$out.$$
  mkdir -p "$new"
  case $product in
    pause) gcc -static -Os -s -o "$new/pause" "$HERE/pause/pause.c" ;;
    kubernetes)
      # Without gitVersion nodes and kubectl say v0.0.0.
      local version at=k8s.io/component-base/version
      version=$(version_of kubernetes k8s.io/kubernetes)
      minor=${version#v1.}
      flags+=" -X $at.gitVersion=$version -X $at.gitMajor=1 -X $at.gitMinor=${minor%%.*}"
      CGO_ENABLED=0 go build -C "$HERE/$product" -trimpath -ldflags "$flags" -o "$new/" tool
      ;;
    etcd) CGO_ENABLED=0 go build -C "$HERE/$product" -trimpath -ldflags "$flags" -o "$new/etcd" go.etcd.io/etcd/server/v3 ;;
    runc) CGO_ENABLED=1 go build -C "$HERE/$product" -trimpath -tags seccomp -ldflags "$flags" -o "$new/" tool ;;
    *) CGO_ENABLED=0 go build -C "$HERE/$product" -trimpath -ldflags "$flags" -o "$new/" tool ;;
  esac
  touch "$new/complete"
  rm -rf "$out"
  mv "$new" "$out"
}

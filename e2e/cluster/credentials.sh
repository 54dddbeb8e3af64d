# An authority of the cluster's own, and a kubeconfig for each of its parts. Sourced by `cluster`.

issue() { # NAME SUBJECT SUBJECT-ALTERNATIVE-NAMES
  openssl ecparam -genkey -name prime256v1 -out "$PKI/$1.key" 2>/dev/null
  openssl req -new -key "$PKI/$1.key" -subj "$2" |
    openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 30 -out "$PKI/$1.crt" \
      -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3") 2>/dev/null
}

kubeconfig() { # NAME; JSON, which is YAML too, so that volumes.py needs no parser
  cat >"$RUN/$1.kubeconfig" <<X
{"apiVersion": "v1", "kind": "Config", "current-context": "e2e",
 "clusters": [{"name": "e2e", "cluster": {"server": "https://$API:6443", "certificate-authority": "$PKI/ca.crt"}}],
 "users": [{"name": "$1", "user": {"client-certificate": "$PKI/$1.crt", "client-key": "$PKI/$1.key"}}],
 "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "$1"}}]}
X
}

credentials() {
  local name
  mkdir -p "$PKI"
  openssl ecparam -genkey -name prime256v1 -out "$PKI/ca.key" 2>/dev/null
  openssl req -x509 -new -key "$PKI/ca.key" -subj /CN=posthof-e2e -days 30 -out "$PKI/ca.crt"
  issue apiserver /CN=kube-apiserver \
    "IP:$API,IP:127.0.0.1,IP:198.19.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  issue admin /O=system:masters/CN=admin DNS:admin
  issue controller-manager /CN=system:kube-controller-manager DNS:controller-manager
  issue scheduler /CN=system:kube-scheduler DNS:scheduler
  issue proxy /CN=system:kube-proxy DNS:proxy
  for name in node-a node-b; do
    issue "$name" "/O=system:nodes/CN=system:node:$name" "DNS:$name,IP:${ADDRESS[$name]}"
  done
  openssl genrsa -out "$PKI/sa.key" 2048 2>/dev/null
  openssl rsa -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  for name in admin controller-manager scheduler proxy node-a node-b; do kubeconfig "$name"; done
}

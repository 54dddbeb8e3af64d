{{/*
What the operator may do in a namespace. It makes Roles for MTA pods, and the API server lets it grant only what it
holds itself: so there is no escalate and no bind here. Every resource and verb is named.
*/}}
{{- define "posthof.operator.rules" -}}
- apiGroups: [posthof.dev]
  resources: [mtas, maildomains, relaypolicies, accesspolicies, smtpcredentials, dkimkeys, tlscerts]
  verbs: [get, list, watch, patch]
- apiGroups: [posthof.dev]
  resources: [mtas/status, maildomains/status, relaypolicies/status, accesspolicies/status, smtpcredentials/status, dkimkeys/status, tlscerts/status]
  verbs: [get, patch]
# DKIM keys are made, changed for new ones and taken away for a MailDomain that asks for it.
- apiGroups: [posthof.dev]
  resources: [dkimkeys]
  verbs: [create, delete]
# Owner references that hold back the deletion of their owner ask for this.
- apiGroups: [posthof.dev]
  resources: [mtas/finalizers, maildomains/finalizers, smtpcredentials/finalizers, dkimkeys/finalizers, tlscerts/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps, secrets, services, serviceaccounts, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch] # patch: the deletion cost of those that go
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# Each pod keeps a Lease, by which the others know that it lives.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, patch, delete]
# Objects of others, made only where their API exists and an object of ours asks for them.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [externaldns.k8s.io]
  resources: [dnsendpoints]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}

{{/* Its own namespace: who leads, and the canary of its watches. */}}
{{- define "posthof.operator.ownrules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

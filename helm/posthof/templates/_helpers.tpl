{{- define "posthof.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "posthof.fullname" -}}
{{- $name := include "posthof.name" . -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* A name that no other release in the cluster has, for objects without a namespace. */}}
{{- define "posthof.clustername" -}}
{{- printf "%s-%s" .Release.Namespace (include "posthof.fullname" .) | trunc 60 | trimSuffix "-" }}
{{- end }}

{{- define "posthof.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: posthof
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: posthof
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* dict "root" $ "component" "operator" */}}
{{- define "posthof.selector" -}}
app.kubernetes.io/name: posthof
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* dict "root" $ "image" .Values.operator.image */}}
{{- define "posthof.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end }}
{{- end }}

{{- define "posthof.operator.account" -}}
{{- default (printf "%s-operator" (include "posthof.fullname" .)) .Values.operator.serviceAccount.name }}
{{- end }}

{{- define "posthof.webhook.account" -}}
{{- default (printf "%s-webhook" (include "posthof.fullname" .)) .Values.webhook.serviceAccount.name }}
{{- end }}

{{/* "true" or nothing: a webhook is registered for the whole cluster. */}}
{{- define "posthof.webhook" -}}
{{- if and .Values.webhook.enabled (not .Values.watchNamespaces) }}true{{ end }}
{{- end }}

{{/* The watched namespaces and our own, as a list in JSON. */}}
{{- define "posthof.namespaces" -}}
{{- append .Values.watchNamespaces .Release.Namespace | uniq | sortAlpha | toJson }}
{{- end }}

{{- define "posthof.pod.security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "posthof.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* dict "root" $ "component" "operator" "of" .Values.operator: where pods of the chart run. */}}
{{- define "posthof.scheduling" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  {{- if .of.affinity }}
  {{- toYaml .of.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "posthof.selector" . | nindent 14 }}
  {{- end }}
{{- end }}

{{- define "posthof.test.hook" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- define "posthof.egress" }}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- with .Values.networkPolicy.egress.apiServerPorts }}
- ports:
    {{- range . }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- end }}

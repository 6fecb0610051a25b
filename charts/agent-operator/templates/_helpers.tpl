{{- define "agent-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Prefix of every resource name; at most 50 characters, so that suffixes fit. */}}
{{- define "agent-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "agent-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "agent-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "agent-operator.gatewayName" -}}
{{- printf "%s-gateway" (include "agent-operator.fullname" .) }}
{{- end }}

{{- define "agent-operator.gatewaySelectorLabels" -}}
app.kubernetes.io/name: {{ include "agent-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "agent-operator.gatewayLabels" -}}
{{- $own := include "agent-operator.gatewaySelectorLabels" . | fromYaml }}
{{- toYaml (merge $own (include "agent-operator.labels" . | fromYaml)) }}
{{- end }}

{{/* Labels of every object, as YAML. The chart's own win over commonLabels: selectors depend on them. */}}
{{- define "agent-operator.labels" -}}
{{- $own := include "agent-operator.selectorLabels" . | fromYaml }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service }}
{{- toYaml (merge $own (default dict .Values.commonLabels)) }}
{{- end }}

{{/* Labels of the operator's pods: no chart version, so a new chart alone restarts nothing. */}}
{{- define "agent-operator.podLabels" -}}
{{- $own := include "agent-operator.selectorLabels" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion }}
{{- toYaml (merge $own (default dict .Values.podLabels) (default dict .Values.commonLabels)) }}
{{- end }}

{{- define "agent-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "agent-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* registry/repository:tag or registry/repository@digest. Call with (dict "image" … "root" $). */}}
{{- define "agent-operator.image" -}}
{{- $registry := default .image.registry .root.Values.global.imageRegistry }}
{{- $name := ternary .image.repository (printf "%s/%s" $registry .image.repository) (empty $registry) }}
{{- if .image.digest }}
{{- printf "%s@%s" $name .image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .root.Chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}

{{/* The operator's pull secrets as a YAML list, empty when there are none. */}}
{{- define "agent-operator.imagePullSecrets" -}}
{{- with concat (default list .Values.global.imagePullSecrets) (default list .Values.imagePullSecrets) | uniq }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod. */}}
{{- define "agent-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What the restricted Pod Security Standard asks of a container, and a read-only root beyond it. */}}
{{- define "agent-operator.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
The operator's permissions on what it manages; ClusterRole and Roles share them. Secrets are not
among them: pods refer to them, the kubelet reads them.
*/}}
{{- define "agent-operator.rules" -}}
- apiGroups: [agentoperator.dev]
  resources: [agentdeployments]
  verbs: [get, list, watch]
- apiGroups: [agentoperator.dev]
  resources: [agentdeployments/status]
  verbs: [patch]
# Children carry an owner reference that blocks the owner's deletion: the API server asks for this.
- apiGroups: [agentoperator.dev]
  resources: [agentdeployments/finalizers]
  verbs: [update]
# update: an entry that somebody else added beside ours can only be removed by replacing the object.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, update, patch, delete]
{{- if .Values.keda.enabled }}
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, watch, create, update, patch, delete]
{{- end }}
# patch: the annotation by which Kubernetes ends an idle replica before a busy one.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, update, patch, delete]
# How many devices a namespace may have, and the nodes do: bounds of scaling.
- apiGroups: [""]
  resources: [resourcequotas]
  verbs: [list]
{{- if not .Values.watchNamespaces }}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
{{- end }}
# list: what a pod waits for, for example a Secret, stands in the kubelet's events and nowhere else.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, list]
{{- end }}

{{/*
The gateway's permissions: where requests are to go, and, if it is to ask for API keys, the Secrets that
hold them, one by one, never a list.
*/}}
{{- define "agent-operator.gatewayRules" -}}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
{{- with .Values.gateway.apiKeySecretNames }}
- apiGroups: [""]
  resources: [secrets]
  {{- if not (has "*" .) }}
  resourceNames: {{ uniq . | sortAlpha | toJson }}
  {{- end }}
  verbs: [get]
{{- end }}
{{- end }}

{{/* Combinations of values that the schema cannot explain well. */}}
{{- define "agent-operator.validate" -}}
{{- if and (not .Values.leaderElection.enabled) (gt (int .Values.replicaCount) 1) }}
{{- fail (printf "replicaCount is %d while leaderElection.enabled is false: several operators would write the same objects. Set leaderElection.enabled=true, or replicaCount=1." (int .Values.replicaCount)) }}
{{- end }}
{{- if and .Values.keda.enabled (not .Values.keda.prometheusAddress) }}
{{- fail "keda.enabled is true while keda.prometheusAddress is empty: KEDA scales by the agents' metrics and needs to know which Prometheus has them. Set keda.prometheusAddress=http://…, or keda.enabled=false." }}
{{- end }}
{{- $own := dict "AGENT_OPERATOR_RUNTIME_IMAGE" "runtimeImage" "AGENT_OPERATOR_WATCH_NAMESPACES" "watchNamespaces" "AGENT_OPERATOR_SHARD" "shard" "AGENT_OPERATOR_LEADER_ELECT" "leaderElection.enabled" "AGENT_OPERATOR_LOG_LEVEL" "config.logLevel" "AGENT_OPERATOR_WORKERS" "config.workers" "AGENT_OPERATOR_RESYNC_SECONDS" "config.resyncSeconds" "AGENT_OPERATOR_GATEWAY_SERVICE" "gateway.enabled" "AGENT_OPERATOR_KEDA_ENABLED" "keda.enabled" "AGENT_OPERATOR_KEDA_PROMETHEUS_ADDRESS" "keda.prometheusAddress" }}
{{- range $index, $variable := .Values.extraEnv }}
{{- if hasKey $own $variable.name }}
{{- fail (printf "extraEnv[%d] sets %s, which the chart sets itself: set the value %s instead." $index $variable.name (get $own $variable.name)) }}
{{- end }}
{{- end }}
{{- end }}

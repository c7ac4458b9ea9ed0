{{- /* Helpers take a dictionary: root is the chart's context, name the part (meta, compute, …), part its values. */ -}}

{{- define "weir.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "weir.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "weir.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "weir.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .name }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The metadata of an object: its name is that of the release, and suffix. */ -}}
{{- define "weir.metadata" -}}
name: {{ include "weir.fullname" .root }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "weir.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge dict (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "weir.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "weir.replicas" -}}
{{- $usual := dict "meta" 3 "compute" 2 "frontend" 2 -}}
{{- if kindIs "invalid" .part.replicas -}}
{{- ternary 1 (get $usual .name) .root.Values.trial.enabled -}}
{{- else -}}
{{- int .part.replicas -}}
{{- end -}}
{{- end -}}

{{- /* The domain of the pods of a headless service. */ -}}
{{- define "weir.domain" -}}
{{- printf "%s-%s.%s.svc.%s" (include "weir.fullname" .root) .name .root.Release.Namespace .root.Values.clusterDomain -}}
{{- end -}}

{{- define "weir.metaAddresses" -}}
{{- $meta := dict "root" . "name" "meta" "part" .Values.meta -}}
{{- $addresses := list -}}
{{- range until (int (include "weir.replicas" $meta)) -}}
{{- $addresses = append $addresses (printf "%s-meta-%d.%s:5690" (include "weir.fullname" $) . (include "weir.domain" $meta)) -}}
{{- end -}}
{{- join "," $addresses -}}
{{- end -}}

{{- define "weir.etcdEndpoints" -}}
{{- if .Values.etcd.endpoints -}}
{{- join "," .Values.etcd.endpoints -}}
{{- else -}}
{{- printf "http://%s-etcd.%s.svc.%s:2379" (include "weir.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}
{{- end -}}

{{- define "weir.stateOnVolume" -}}
{{- if and (not .Values.state.url) (or .Values.state.volume.enabled .Values.trial.enabled) }}true{{ end -}}
{{- end -}}

{{- define "weir.stateUrl" -}}
{{- ternary "file:///var/lib/weir/state" .Values.state.url (eq (include "weir.stateOnVolume" .) "true") -}}
{{- end -}}

{{- /* Keys of one table of weir.toml. JSON's numbers, strings and lists of strings are TOML's too. */ -}}
{{- define "weir.toml" -}}
[{{ .name }}]
{{- range $key, $value := .part.config }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end -}}

{{- define "weir.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "weir.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* Without the versions of chart and program: another one alone is no reason to restart a pod. */ -}}
{{- define "weir.podLabels" -}}
{{ include "weir.selector" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "weir.podMetadata" -}}
labels:
  {{- include "weir.podLabels" . | nindent 2 }}
  {{- with .part.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include "weir.toml" . | sha256sum }}
  {{- with merge dict .part.annotations .root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* The part of a pod's specification that stands beside its containers. */ -}}
{{- define "weir.podSpec" -}}
serviceAccountName: {{ include "weir.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .part.terminationGracePeriodSeconds }}
securityContext:
  {{- include "weir.podSecurityContext" . | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - maxSkew: 1
    topologyKey: {{ .topologyKey }}
    whenUnsatisfiable: {{ .whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "weir.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- /* A container of Weir; ports, env and mounts are the part's own, as text. */ -}}
{{- define "weir.container" -}}
- name: weir
  image: {{ include "weir.image" .root | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: [{{ .name }}]
  env:
    - name: POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: WEIR_CONFIG
      value: /etc/weir/config/weir.toml
    - name: WEIR_HTTP_LISTEN
      value: {{ printf "%s:5691" .root.Values.listenHost | quote }}
    - name: WEIR_LOG
      value: {{ .root.Values.log.filter | quote }}
    - name: WEIR_LOG_FORMAT
      value: {{ .root.Values.log.format }}
    {{- if .root.Values.insecure }}
    - name: WEIR_INSECURE
      value: "true"
    {{- end }}
    {{- with .root.Values.otlpEndpoint }}
    - name: WEIR_OTLP_ENDPOINT
      value: {{ . | quote }}
    {{- end }}
    {{- .env | nindent 4 }}
    {{- with .part.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .part.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    {{- .ports | nindent 4 }}
    - name: http
      containerPort: 5691
  {{- range $probe, $path := dict "startup" "/health" "liveness" "/health" "readiness" "/ready" }}
  {{ $probe }}Probe:
    httpGet:
      path: {{ $path }}
      port: http
    {{- toYaml (get $.root.Values.probes $probe) | nindent 4 }}
  {{- end }}
  {{- with .lifecycle }}
  lifecycle:
    {{- . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml .part.resources | nindent 4 }}
  securityContext:
    {{- include "weir.securityContext" . | nindent 4 }}
  volumeMounts:
    - name: config
      mountPath: /etc/weir/config
      readOnly: true
    {{- if .root.Values.nats.existingSecret }}
    - name: nats
      mountPath: /etc/weir/nats
      readOnly: true
    {{- end }}
    {{- with .mounts }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .part.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "weir.volumes" -}}
- name: config
  configMap:
    name: {{ include "weir.fullname" .root }}-{{ .name }}
{{- with .root.Values.nats.existingSecret }}
- name: nats
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- with .part.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What meta and compute share. */ -}}
{{- define "weir.clusterEnv" -}}
- name: WEIR_CLUSTER
  value: {{ .root.Values.clusterName | quote }}
- name: WEIR_STATE_URL
  value: {{ include "weir.stateUrl" .root | quote }}
- name: WEIR_ADVERTISE
  value: {{ printf "$(POD_NAME).%s:%s" (include "weir.domain" .) .port | quote }}
- name: WEIR_LISTEN
  value: {{ printf "%s:%s" .root.Values.listenHost .port | quote }}
{{- end -}}

{{- /* Region, endpoint and credentials of the object store. */ -}}
{{- define "weir.objectStoreEnv" -}}
{{- with .Values.state.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.state.endpoint }}
- name: AWS_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.state.existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.state.accessKeyIdKey }}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.state.secretAccessKeyKey }}
{{- end }}
{{- end -}}

{{- /* Refuses values that no schema can refuse, because they depend on each other. */ -}}
{{- define "weir.validate" -}}
{{- $compute := dict "root" . "name" "compute" "part" .Values.compute -}}
{{- $scaled := or .Values.compute.autoscaling.enabled .Values.compute.keda.enabled -}}
{{- if and (not .Values.state.url) (ne (include "weir.stateOnVolume" .) "true") -}}
{{- fail "state.url is missing: name an object store, s3://bucket/prefix, or set trial.enabled=true" -}}
{{- end -}}
{{- if and (not .Values.etcd.endpoints) (not .Values.trial.enabled) -}}
{{- fail "etcd.endpoints is missing: name the members of an etcd cluster, or set trial.enabled=true" -}}
{{- end -}}
{{- if and (eq (include "weir.stateOnVolume" .) "true") (ne .Values.state.volume.accessMode "ReadWriteMany") (or $scaled (gt (int (include "weir.replicas" $compute)) 1)) -}}
{{- fail "several compute nodes cannot share a volume of ReadWriteOnce: set state.url to an object store, or state.volume.accessMode to ReadWriteMany with a storage class that has it" -}}
{{- end -}}
{{- if and .Values.compute.autoscaling.enabled .Values.compute.keda.enabled -}}
{{- fail "compute.autoscaling and compute.keda would scale against each other: enable one" -}}
{{- end -}}
{{- if and .Values.compute.keda.enabled (not .Values.compute.keda.prometheusAddress) -}}
{{- fail "compute.keda.prometheusAddress is missing: KEDA reads the lag from Prometheus" -}}
{{- end -}}
{{- end -}}

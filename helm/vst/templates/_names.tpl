{{/* Names, labels, images and references that several manifests share. */}}

{{- define "vst.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for the longest suffix, and for the pods' ordinals behind it. */}}
{{- define "vst.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "vst.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "vst.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Takes (dict "root" . "part" "worker"). */}}
{{- define "vst.selector" -}}
app.kubernetes.io/name: {{ include "vst.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .part }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "vst.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "vst.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: vst
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{/* Takes (dict "image" VALUES "default" TAG): a digest is stronger than a tag. */}}
{{- define "vst.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .default .image.tag }}
{{- end -}}
{{- end -}}

{{- define "vst.image.fleet" -}}
{{ include "vst.image" (dict "image" .Values.image.fleet "default" .Chart.AppVersion) }}
{{- end -}}

{{- define "vst.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "vst.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "vst.resultsClaim" -}}
{{- default (printf "%s-results" (include "vst.fullname" .)) .Values.results.persistence.existingClaim -}}
{{- end -}}

{{/* The Job or StatefulSet of a run. */}}
{{- define "vst.runWorkload" -}}
{{- printf "%s-run-%s" (include "vst.fullname" .) .Values.coordinator.run -}}
{{- end -}}

{{/* The run, and its directory below the results; another release may use the same results. */}}
{{- define "vst.runName" -}}
{{- printf "%s-%s" .Release.Name .Values.coordinator.run -}}
{{- end -}}

{{- define "vst.runDirectory" -}}
{{- printf "%s/%s" (default "/var/lib/vst/runs" .Values.results.url | trimSuffix "/") (include "vst.runName" .) -}}
{{- end -}}

{{/* The workload that is the coordinator, as kubectl names it. */}}
{{- define "vst.coordinatorWorkload" -}}
{{ lower .Values.coordinator.kind }}/{{ include "vst.runWorkload" . }}
{{- end -}}

{{- define "vst.usesEtcd" -}}
{{- if or .Values.etcd.enabled .Values.etcd.endpoints -}}true{{- end -}}
{{- end -}}

{{- define "vst.etcdUrls" -}}
{{- if .Values.etcd.endpoints -}}
{{- join "," .Values.etcd.endpoints -}}
{{- else -}}
http://{{ include "vst.fullname" . }}-etcd:2379
{{- end -}}
{{- end -}}

{{- define "vst.waitForWorkers" -}}
{{- if kindIs "invalid" .Values.coordinator.waitForWorkers -}}
{{- .Values.workers.replicas -}}
{{- else -}}
{{- .Values.coordinator.waitForWorkers -}}
{{- end -}}
{{- end -}}

{{/* Whether the chart makes its own Secret. */}}
{{- define "vst.makesSecret" -}}
{{- if or (and .Values.auth.enabled (not .Values.auth.existingSecret)) (and .Values.target.password (not .Values.target.existingSecret)) -}}true{{- end -}}
{{- end -}}

{{/* Said once, at the first template: what no schema can say. */}}
{{- define "vst.check" -}}
{{- $v := .Values -}}
{{- if and $v.etcd.enabled $v.etcd.endpoints -}}
{{- fail "etcd.enabled and etcd.endpoints exclude each other: set etcd.enabled=false to use the endpoints" -}}
{{- end -}}
{{- /* Not by the schema, whose message would show it. */ -}}
{{- if regexMatch ":[^@]*@" (trimPrefix "valkey://" $v.target.url) -}}
{{- fail "target.url holds a password, which manifests must not: give it by target.existingSecret or target.password" -}}
{{- end -}}
{{- if and $v.target.password $v.target.existingSecret -}}
{{- fail "target.password and target.existingSecret exclude each other" -}}
{{- end -}}
{{- if and $v.auth.token $v.auth.existingSecret -}}
{{- fail "auth.token and auth.existingSecret exclude each other" -}}
{{- end -}}
{{- if gt (include "vst.waitForWorkers" . | int) ($v.workers.replicas | int) -}}
{{- fail (printf "coordinator.waitForWorkers (%s) is more than workers.replicas (%v): the run would never begin" (include "vst.waitForWorkers" .) $v.workers.replicas) -}}
{{- end -}}
{{- if and $v.workers.guaranteed (ne (float64 $v.workers.cpu) (floor (float64 $v.workers.cpu))) -}}
{{- fail (printf "workers.guaranteed wants whole CPUs, workers.cpu is %v" $v.workers.cpu) -}}
{{- end -}}
{{- if and (gt ($v.coordinator.replicas | int) 1) (not (or $v.results.url $v.results.persistence.existingClaim (has "ReadWriteMany" $v.results.persistence.accessModes))) -}}
{{- fail "coordinator.replicas above 1 wants results that all of them can write: results.url, or persistence with ReadWriteMany" -}}
{{- end -}}
{{- if and (gt ($v.coordinator.replicas | int) 1) (not $v.results.url) (not $v.results.persistence.enabled) -}}
{{- fail "coordinator.replicas above 1 wants results that outlive a pod: results.url, or persistence" -}}
{{- end -}}
{{- end -}}

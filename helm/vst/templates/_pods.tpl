{{/* Parts of pods. */}}

{{/* What every pod of the chart has; takes (dict "root" . "values" PART). */}}
{{- define "vst.pod" -}}
serviceAccountName: {{ include "vst.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .root.Values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- /* A data set of a terabyte is not walked at each start. */}}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "vst.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Of every vst process: secrets come from the environment and from nowhere else. */}}
{{- define "vst.env" -}}
- name: VST_LOG
  value: {{ .Values.log | quote }}
- name: XDG_CACHE_HOME
  value: /var/cache
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- if .Values.auth.enabled }}
- name: VST_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ default (include "vst.fullname" .) .Values.auth.existingSecret }}
      key: {{ ternary .Values.auth.tokenKey "token" (ne .Values.auth.existingSecret "") }}
{{- end }}
{{- if .Values.tls.existingSecret }}
- name: VST_TLS_CA
  value: /etc/vst/tls/ca.crt
- name: VST_TLS_CERT
  value: /etc/vst/tls/tls.crt
- name: VST_TLS_KEY
  value: /etc/vst/tls/tls.key
{{- with .Values.tls.name }}
- name: VST_TLS_NAME
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if .Values.etcd.existingSecret }}
- name: VST_ETCD_USER
  valueFrom:
    secretKeyRef: {name: {{ .Values.etcd.existingSecret }}, key: {{ .Values.etcd.userKey }}}
- name: VST_ETCD_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .Values.etcd.existingSecret }}, key: {{ .Values.etcd.passwordKey }}}
{{- end }}
{{- end -}}

{{/* Of those that speak with the target. */}}
{{- define "vst.env.target" -}}
{{- if or .Values.target.existingSecret .Values.target.password }}
- name: VST_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ default (include "vst.fullname" .) .Values.target.existingSecret }}
      key: {{ ternary .Values.target.passwordKey "target-password" (ne .Values.target.existingSecret "") }}
{{- end }}
{{- end -}}

{{/* Of those that read data or results from an object store. */}}
{{- define "vst.env.store" -}}
{{- range $name, $value := .Values.objectStorage.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "vst.envFrom" -}}
{{- with .Values.objectStorage.existingSecret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end -}}

{{/* How processes find each other. */}}
{{- define "vst.registryArgs" -}}
- --etcd
- {{ include "vst.etcdUrls" . | quote }}
- --fleet
- {{ default .Release.Name .Values.etcd.fleet | quote }}
{{- end -}}

{{- define "vst.bind" -}}
{{ printf "%s:%v" .root.Values.bindAddress .port | quote }}
{{- end -}}

{{/* Starting may take long where images are cold; afterwards /healthz says when a loop stands still. */}}
{{- define "vst.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{/* Nothing but these can be written. */}}
{{- define "vst.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /var/cache}
{{- if .Values.tls.existingSecret }}
- {name: tls, mountPath: /etc/vst/tls, readOnly: true}
{{- end }}
{{- if .Values.data.existingClaim }}
- {name: data, mountPath: {{ .Values.data.mountPath }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "vst.volumes" -}}
- name: tmp
  emptyDir: {}
- name: cache
  emptyDir: {}
{{- with .Values.tls.existingSecret }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.data.existingClaim }}
- name: data
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- end -}}

{{/* The volume of run directories; takes (dict "root" . "readOnly" BOOL). */}}
{{- define "vst.resultsVolume" -}}
{{- if and (not .root.Values.results.url) .root.Values.results.persistence.enabled }}
- name: results
  persistentVolumeClaim: {claimName: {{ include "vst.resultsClaim" .root }}, readOnly: {{ .readOnly }}}
{{- else if not .root.Values.results.url }}
- name: results
  emptyDir: {}
{{- end }}
{{- end -}}

{{/* The coordinator's pod: the same in a Job and in a StatefulSet but for what happens when it ends. */}}

{{- define "vst.coordinator.metadata" -}}
labels:
  {{- include "vst.coordinator.selector" . | nindent 2 }}
annotations:
  cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
  {{- if .Values.scenario.files }}
  checksum/scenarios: {{ .Values.scenario.files | toJson | sha256sum }}
  {{- end }}
  {{- with .Values.coordinator.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Coordinators of one run and no other: while an earlier one drains, the next begins. */}}
{{- define "vst.coordinator.selector" -}}
{{ include "vst.selector" (dict "root" . "part" "coordinator") }}
app.kubernetes.io/run: {{ .Values.coordinator.run | quote }}
{{- end -}}

{{- define "vst.coordinator.scenario" -}}
{{- if hasKey .Values.scenario.files .Values.scenario.name -}}
/etc/vst/scenarios/{{ .Values.scenario.name }}.yaml
{{- else -}}
/usr/share/vst/scenarios/{{ .Values.scenario.name }}.yaml
{{- end -}}
{{- end -}}

{{- define "vst.coordinator.spec" -}}
{{- $v := .Values -}}
{{ include "vst.pod" (dict "root" . "values" $v.coordinator) }}
terminationGracePeriodSeconds: {{ $v.coordinator.terminationGracePeriodSeconds }}
containers:
  - name: coordinator
    image: {{ include "vst.image.fleet" . | quote }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    command: [/usr/local/bin/vst]
    args:
      - coordinator
      - start
      - --scenario
      - {{ include "vst.coordinator.scenario" . | quote }}
      {{- range $v.scenario.set }}
      - --set
      - {{ . | quote }}
      {{- end }}
      - --target
      - {{ $v.target.url | quote }}
      - --results
      - {{ default "/var/lib/vst/runs" $v.results.url | quote }}
      - --run
      - {{ include "vst.runName" . | quote }}
      - --workers
      - {{ include "vst.waitForWorkers" . | quote }}
      - --listen
      - {{ include "vst.bind" (dict "root" . "port" $v.ports.fleet) }}
      - --http
      - {{ include "vst.bind" (dict "root" . "port" $v.ports.http) }}
      {{- if include "vst.usesEtcd" . }}
      {{- include "vst.registryArgs" . | nindent 6 }}
      - --advertise
      - {{ printf (ternary "[$(POD_IP)]:%v" "$(POD_IP):%v" (hasPrefix "[" $v.bindAddress)) $v.ports.fleet | quote }}
      {{- end }}
      {{- if gt ($v.coordinator.replicas | int) 1 }}
      - --hand-over
      {{- end }}
      {{- if $v.coordinator.cleanup }}
      - --cleanup
      {{- end }}
      {{- range $v.coordinator.extraArgs }}
      - {{ . | quote }}
      {{- end }}
    env:
      {{- include "vst.env" . | nindent 6 }}
      {{- include "vst.env.target" . | nindent 6 }}
      {{- include "vst.env.store" . | nindent 6 }}
      {{- with $v.coordinator.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- include "vst.envFrom" . | nindent 4 }}
    ports:
      - {name: fleet, containerPort: {{ $v.ports.fleet }}}
      - {name: http, containerPort: {{ $v.ports.http }}}
    {{- include "vst.probes" . | nindent 4 }}
    resources:
      {{- toYaml $v.coordinator.resources | nindent 6 }}
    {{- include "vst.container" . | nindent 4 }}
    volumeMounts:
      {{- include "vst.mounts" . | nindent 6 }}
      {{- if not $v.results.url }}
      - {name: results, mountPath: /var/lib/vst/runs}
      {{- end }}
      {{- if $v.scenario.files }}
      - {name: scenarios, mountPath: /etc/vst/scenarios, readOnly: true}
      {{- end }}
volumes:
  {{- include "vst.volumes" . | nindent 2 }}
  {{- include "vst.resultsVolume" (dict "root" . "readOnly" false) | nindent 2 }}
  {{- if $v.scenario.files }}
  - name: scenarios
    configMap: {name: {{ include "vst.fullname" . }}-scenarios}
  {{- end }}
{{- end -}}

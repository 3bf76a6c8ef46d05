{{/* Labels. The argument of those that name a component is (dict "root" $ "component" "webserver"). */}}

{{- define "tilth.selectorLabels" -}}
app.kubernetes.io/name: tilth
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "tilth.labels" -}}
{{ include "tilth.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "tilth.podLabels" -}}
{{ include "tilth.selectorLabels" . }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tilth.image" -}}
{{ .repository }}:{{ .tag }}
{{- end }}

{{/* The image of a code location, or of the platform's own pods: (dict "root" $ "image" .image). */}}
{{- define "tilth.imageOf" -}}
{{- $default := merge (dict "tag" (.root.Values.image.tag | default .root.Chart.AppVersion)) .root.Values.image }}
{{- merge (deepCopy (.image | default dict)) $default | toYaml }}
{{- end }}

{{/* The sizes of a code location's server: (dict "root" $ "resources" .resources). */}}
{{- define "tilth.locationResources" -}}
{{- mergeOverwrite (deepCopy .root.Values.codeLocationResources) (.resources | default dict) | toJson }}
{{- end }}

{{/* The restricted Pod Security Standard, of pods and of their containers. */}}

{{- define "tilth.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tilth.securityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end }}

{{/* The default node pool's nodes; nothing if there is none. */}}
{{- define "tilth.placement" -}}
{{- range $pool := .Values.nodePools }}
{{- if $pool.default }}
{{- with $pool.selector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $pool.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tilth.imagePullSecrets" -}}
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}

{{/* What the spec of every pod of the project's image begins with. */}}
{{- define "tilth.podSpec" -}}
enableServiceLinks: false
securityContext: {{- include "tilth.podSecurityContext" 1001 | nindent 2 }}
{{- with include "tilth.placement" . | trim }}
{{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- include "tilth.imagePullSecrets" . | nindent 2 }}
{{- end }}
{{- end }}

{{/* PostgreSQL: bundled or not, the same four facts. */}}

{{- define "tilth.postgresql.host" -}}
{{- if .Values.postgresql.enabled }}{{ .Release.Name }}-postgresql{{ else }}{{ .Values.postgresql.postgresqlHost }}{{ end }}
{{- end }}

{{- define "tilth.postgresql.port" -}}
{{- if .Values.postgresql.enabled }}5432{{ else }}{{ .Values.postgresql.service.port }}{{ end }}
{{- end }}

{{- define "tilth.postgresql.passwordEnv" -}}
{{- $postgresql := .Values.postgresql -}}
valueFrom:
  secretKeyRef:
    {{- if $postgresql.enabled }}
    name: {{ .Release.Name }}-postgresql
    key: postgresql-password
    {{- else }}
    name: {{ $postgresql.existingSecret }}
    key: {{ $postgresql.existingSecretKey }}
    {{- end }}
{{- end }}

{{- define "tilth.postgresql.storage" -}}
storage:
  postgres:
    postgres_db:
      # Named, because SQLAlchemy 2.1 takes psycopg 3 for the plain scheme, and dagster-postgres brings psycopg2.
      scheme: postgresql+psycopg2
      hostname: {{ include "tilth.postgresql.host" . | quote }}
      port: {{ include "tilth.postgresql.port" . }}
      username: {{ .Values.postgresql.postgresqlUsername | quote }}
      password: {env: DAGSTER_PG_PASSWORD}
      db_name: {{ .Values.postgresql.postgresqlDatabase | quote }}
      # While PostgreSQL moves, a connection can be lost on its way; the kernel would wait for it for two minutes.
      params: {{ merge (dict) (.Values.postgresql.postgresqlParams | default dict) (dict "connect_timeout" "5") | toJson }}
{{- end }}

{{/* Variables. Of every pod of Dagster, then those of code locations, runs and steps. */}}

{{- define "tilth.env" -}}
- name: DAGSTER_HOME
  value: /opt/dagster
{{ include "tilth.runEnv" . }}
{{- end }}

{{/* The run launcher adds DAGSTER_HOME by itself. */}}
{{- define "tilth.runEnv" -}}
- name: HOME
  value: /tmp
# What a step made of up to so many partitions is recorded at once. One by one, each takes several connections to
# PostgreSQL, and automation finds some of them and starts a run for those.
- name: DAGSTER_EVENT_BATCH_SIZE
  value: "500"
- name: DAGSTER_PG_PASSWORD
  {{- include "tilth.postgresql.passwordEnv" . | nindent 2 }}
{{- end }}

{{- define "tilth.dataEnv" -}}
- name: TILTH_WAREHOUSE_URI
  valueFrom:
    secretKeyRef:
      {{- if .Values.warehouse.existingSecret }}
      name: {{ .Values.warehouse.existingSecret }}
      key: {{ .Values.warehouse.existingSecretKey }}
      {{- else }}
      name: {{ .Release.Name }}-postgresql
      key: warehouse-uri
      {{- end }}
{{- with .Values.alerts }}
{{- if .existingSecret }}
- name: TILTH_ALERTS_URI
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .existingSecretKey }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tilth.envFrom" -}}
{{- range .Values.envSecrets }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Volumes. The root filesystem is read-only: what is written goes to /tmp and to DAGSTER_HOME. */}}

{{- define "tilth.volumes" -}}
- name: tmp
  emptyDir: {}
- name: dagster-home
  emptyDir: {}
- name: instance
  configMap: {name: {{ .Release.Name }}-instance}
{{- end }}

{{- define "tilth.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
- name: dagster-home
  mountPath: /opt/dagster
- name: instance
  mountPath: /opt/dagster/dagster.yaml
  subPath: dagster.yaml
{{- end }}

{{- define "tilth.dataVolumes" -}}
{{- if .Values.storage.persistentVolumeClaim.enabled -}}
- name: data
  persistentVolumeClaim: {claimName: {{ .Release.Name }}-data}
{{- end }}
{{- end }}

{{- define "tilth.dataVolumeMounts" -}}
{{- if .Values.storage.persistentVolumeClaim.enabled -}}
- name: data
  mountPath: /var/lib/tilth
{{- end }}
{{- end }}

{{/* Whether what steps print lies on the volume, which webserver and daemon then read. */}}
{{- define "tilth.logsOnVolume" -}}
{{- if and .Values.storage.persistentVolumeClaim.enabled (not .Values.computeLogs.s3.bucket) }}true{{ end }}
{{- end }}

{{/*
Pods begin anew when what they read at their start has changed: (dict "root" $ "reads" (list "instance" "workspace")).
*/}}
{{- define "tilth.podAnnotations" -}}
{{- range .reads }}
checksum/{{ . }}: {{ include (printf "%s/configmap-%s.yaml" $.root.Template.BasePath .) $.root | sha256sum }}
{{- end }}
{{- with .root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Waits until PostgreSQL takes connections, and says why it does not. What serves waits as long as it takes, and then
serves; what must not begin late gives up: (merge (dict "waitSeconds" 60) $).
*/}}
{{- define "tilth.waitForPostgresql" -}}
{{- $image := include "tilth.imageOf" (dict "root" $) | fromYaml -}}
- name: wait-for-postgresql
  image: {{ include "tilth.image" $image | quote }}
  imagePullPolicy: {{ $image.pullPolicy }}
  securityContext: {{- include "tilth.securityContext" . | nindent 4 }}
  args:
    - python
    - -c
    - |
      import json, os, sys, time
      import psycopg2
      until = time.monotonic() + float(os.environ["WAIT_SECONDS"])
      while True:
          try:
              psycopg2.connect(**{"connect_timeout": 5, **json.loads(os.environ["PARAMS"])}).close()
              break
          except psycopg2.OperationalError as error:
              print(error, flush=True)
              if time.monotonic() > until:
                  sys.exit(1)
              time.sleep(2)
  env:
    - name: PGHOST
      value: {{ include "tilth.postgresql.host" . | quote }}
    - name: PGPORT
      value: {{ include "tilth.postgresql.port" . | quote }}
    - name: PGUSER
      value: {{ .Values.postgresql.postgresqlUsername | quote }}
    - name: PGDATABASE
      value: {{ .Values.postgresql.postgresqlDatabase | quote }}
    - name: WAIT_SECONDS
      value: {{ .waitSeconds | default "inf" | quote }}
    - name: PARAMS
      value: {{ .Values.postgresql.postgresqlParams | toJson | quote }}
    - name: PGPASSWORD
      {{- include "tilth.postgresql.passwordEnv" . | nindent 6 }}
  resources:
    requests: {cpu: 10m, memory: 64Mi}
    limits: {memory: 64Mi}
{{- end }}

{{/* Refuses what the schema cannot: values that need each other. */}}
{{- define "tilth.check" -}}
{{- $values := .Values }}
{{- with $values.postgresql }}
{{- if not .enabled }}
{{- if not .postgresqlHost }}
{{- fail "postgresql: no database. Set postgresql.enabled=true for the bundled one, or postgresql.postgresqlHost and postgresql.existingSecret for yours." }}
{{- end }}
{{- if not .existingSecret }}
{{- fail "postgresql.existingSecret: name the Secret that holds the password of your database." }}
{{- end }}
{{- if not $values.warehouse.existingSecret }}
{{- fail "warehouse.existingSecret: name the Secret that holds the warehouse's URI; only the bundled PostgreSQL (postgresql.enabled=true) brings one." }}
{{- end }}
{{- end }}
{{- end }}
{{- if not $values.storage.persistentVolumeClaim.enabled }}
{{- range list "lakeUri" "landingUri" "modelsUri" }}
{{- if not (index $values.storage .) }}
{{- fail (printf "storage.%s: set it, or storage.persistentVolumeClaim.enabled=true, on whose volume it then lies." .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $names := list }}
{{- range $values.codeLocations }}
{{- if has .name $names }}
{{- fail (printf "codeLocations: two have the name %s; give one of them another." .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- $default := list }}
{{- range $name, $pool := $values.nodePools }}
{{- if $pool.default }}
{{- $default = append $default $name }}
{{- end }}
{{- end }}
{{- if gt (len $default) 1 }}
{{- fail (printf "nodePools: %s all have default: true; leave it on one." (join ", " $default)) }}
{{- end }}
{{- if $values.ingress.enabled }}
{{- if not $values.ingress.host }}
{{- fail "ingress.host: set the name that browsers use, such as tilth.example.com." }}
{{- end }}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.ingressFrom) }}
{{- fail "networkPolicy.ingressFrom: name the ingress controller's pods, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}], or set networkPolicy.enabled=false." }}
{{- end }}
{{- end }}
{{- with $values.oauth2Proxy }}
{{- if .enabled }}
{{- if not $values.ingress.enabled }}
{{- fail "oauth2Proxy.enabled: the login stands between ingress and UI; set ingress.enabled=true and ingress.host as well." }}
{{- end }}
{{- if not .existingSecret }}
{{- fail "oauth2Proxy.existingSecret: name the Secret with client-id, client-secret and cookie-secret." }}
{{- end }}
{{- if not .emailDomains }}
{{- fail "oauth2Proxy.emailDomains: say who may enter, such as [example.com]." }}
{{- end }}
{{- if and (eq .provider "oidc") (not .oidcIssuerUrl) }}
{{- fail "oauth2Proxy.oidcIssuerUrl: set the address of your OpenID Connect provider, or another oauth2Proxy.provider." }}
{{- end }}
{{- end }}
{{- end }}
{{- with $values.mlflow }}
{{- if .enabled }}
{{- if not .image }}
{{- fail "mlflow.image: name an image with MLflow, psycopg2 and your object store's client." }}
{{- end }}
{{- if not .artifactsUri }}
{{- fail "mlflow.artifactsUri: say where MLflow keeps files, such as s3://bucket/mlflow." }}
{{- end }}
{{- if and (not .existingSecret) (not $values.postgresql.enabled) }}
{{- fail "mlflow.existingSecret: name the Secret that holds the URI of MLflow's database; only the bundled PostgreSQL (postgresql.enabled=true) brings one." }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

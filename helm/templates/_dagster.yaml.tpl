{{/* dagster.yaml: Dagster's instance on Kubernetes. platform/dagster.yaml is its counterpart on one machine. */}}
{{- define "tilth.dagster" -}}
telemetry:
  enabled: false
nux:
  enabled: false

{{ include "tilth.postgresql.storage" . }}

scheduler:
  module: dagster._core.scheduler
  class: DagsterDaemonScheduler
schedules:
  use_threads: true
  num_workers: {{ .Values.dagsterDaemon.schedules.numWorkers }}
sensors:
  use_threads: true
  num_workers: {{ .Values.dagsterDaemon.sensors.numWorkers }}

run_coordinator:
  module: dagster._core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: {{ .Values.runCoordinator.dequeueIntervalSeconds }}
concurrency:
  runs:
    max_concurrent_runs: {{ .Values.runCoordinator.maxConcurrentRuns }}
    {{- with .Values.runCoordinator.tagConcurrencyLimits }}
    tag_concurrency_limits: {{ toJson . }}
    {{- end }}
  pools:
    default_limit: {{ .Values.pools.defaultLimit }}
    granularity: op

{{- $secrets := false }}
{{- range .Values.codeLocations }}
{{- $secrets = or $secrets (not (empty .envSecrets)) }}
{{- end }}

# Each run is a Job of its location's image. What is here steps in pods of their own have as well.
run_launcher:
  module: dagster_k8s.launcher
  class: K8sRunLauncher
  config:
    job_namespace: {{ .Release.Namespace }}
    service_account_name: {{ .Release.Name }}-run
    instance_config_map: {{ .Release.Name }}-instance
    dagster_home: /opt/dagster
    image_pull_policy: {{ .Values.image.pullPolicy }}
    {{- with .Values.imagePullSecrets }}
    image_pull_secrets: {{- include "tilth.imagePullSecrets" . | nindent 6 }}
    {{- end }}
    env_config_maps: [{{ .Release.Name }}-settings]
    {{- with .Values.envSecrets }}
    env_secrets: {{ toJson . }}
    {{- end }}
    volumes:
      {{- include "tilth.volumes" . | nindent 6 }}
      {{- with include "tilth.dataVolumes" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    volume_mounts:
      {{- include "tilth.volumeMounts" . | nindent 6 }}
      {{- with include "tilth.dataVolumeMounts" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    resources: {{ toJson .Values.runLauncher.resources }}
    labels:
      app.kubernetes.io/name: tilth
      app.kubernetes.io/instance: {{ .Release.Name }}
      {{- with .Values.podLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    run_k8s_config:
      container_config:
        # Not by `-m`: each step in the run's pod would import the module once more.
        command: [tini, --, python, -c, from tilth._dagster.run_process import main; main()]
        env:
          {{- include "tilth.runEnv" . | nindent 10 }}
          {{- include "tilth.dataEnv" . | nindent 10 }}
        securityContext: {{- include "tilth.securityContext" . | nindent 10 }}
      pod_spec_config:
        enableServiceLinks: false
        securityContext: {{- include "tilth.podSecurityContext" 1001 | nindent 10 }}
        {{- with include "tilth.placement" . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
      pod_template_spec_metadata:
        annotations:
          # A node that is emptied to save cost waits for the run.
          cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
          karpenter.sh/do-not-disrupt: "true"
          {{- with .Values.podAnnotations }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
      job_spec_config:
        ttlSecondsAfterFinished: {{ int64 .Values.runLauncher.ttlSecondsAfterFinished }}
    # Dagster holds a run's tags to this, and also its code location's DAGSTER_CONTAINER_CONTEXT, which has these two.
    {{- $context := dict "container_config" (dict "image_pull_policy" true "env_from" $secrets) }}
    only_allow_user_defined_k8s_config_fields: {{ merge $context (deepCopy .Values.runLauncher.tagsMaySet) | toJson }}

run_monitoring:
  enabled: true
  poll_interval_seconds: {{ .Values.runMonitoring.pollIntervalSeconds }}
  start_timeout_seconds: {{ int64 .Values.runMonitoring.startTimeoutSeconds }}
  cancel_timeout_seconds: {{ int64 .Values.runMonitoring.cancelTimeoutSeconds }}
  # A run whose pod died is tried again as a new run, from where it failed: the steps in its own pod died with it.
  max_resume_run_attempts: 0
  # A cancelled run can keep its place in a pool; give it back.
  free_slots_after_run_end_seconds: 30
run_retries:
  enabled: true
  max_retries: {{ .Values.runRetries.maxRetries }}
  retry_on_asset_or_op_failure: false

freshness:
  enabled: true

retention:
  schedule:
    purge_after_days: {{ toJson .Values.retention.schedule.purgeAfterDays }}
  sensor:
    purge_after_days: {{ toJson .Values.retention.sensor.purgeAfterDays }}
  auto_materialize:
    purge_after_days: {{ toJson .Values.retention.sensor.purgeAfterDays }}

compute_logs:
  {{- if .Values.computeLogs.s3.bucket }}
  module: dagster_aws.s3.compute_log_manager
  class: S3ComputeLogManager
  config:
    bucket: {{ .Values.computeLogs.s3.bucket | quote }}
    prefix: {{ .Values.computeLogs.s3.prefix | quote }}
    local_dir: /tmp/compute_logs
    upload_interval: {{ .Values.computeLogs.s3.uploadIntervalSeconds }}
    skip_empty_files: true
    show_url_only: false
    {{- with .Values.storage.s3.region }}
    region: {{ . | quote }}
    {{- end }}
    {{- with .Values.storage.s3.endpointUrl }}
    endpoint_url: {{ . | quote }}
    use_ssl: {{ hasPrefix "https://" . }}
    {{- end }}
  {{- else if include "tilth.logsOnVolume" . }}
  module: dagster._core.storage.local_compute_log_manager
  class: LocalComputeLogManager
  config:
    base_dir: /var/lib/tilth/compute_logs
  {{- else }}
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
  {{- end }}

python_logs:
  managed_python_loggers: {{ toJson .Values.pythonLogs.managedPythonLoggers }}
  python_log_level: {{ .Values.pythonLogs.pythonLogLevel }}
{{- end }}

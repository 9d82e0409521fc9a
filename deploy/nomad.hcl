# A Nomad job: rolling deploys that wait for health, with room for minicorn to drain.
job "shop" {
  type = "service"

  update {
    max_parallel     = 1
    canary           = 1
    auto_promote     = true
    auto_revert      = true
    min_healthy_time = "10s"
    healthy_deadline = "2m"
  }

  group "web" {
    count = 2

    network {
      port "http" {
        to = 8000
      }
      port "monitor" {
        to = 9100
      }
    }

    service {
      name     = "shop"
      port     = "http"
      provider = "nomad"

      check {
        type     = "http"
        port     = "monitor"
        path     = "/ready"
        interval = "5s"
        timeout  = "2s"
      }
    }

    task "minicorn" {
      driver = "docker"
      # More than --drain-delay and --graceful-timeout together
      kill_timeout = "45s"

      config {
        image           = "registry.example.com/shop:1"
        args            = ["main:app", "--bind", "0.0.0.0:8000", "--workers", "2", "--monitor", "0.0.0.0:9100", "--monitor-allow", "--drain-delay", "10"]
        ports           = ["http", "monitor"]
        readonly_rootfs = true
        cap_drop        = ["ALL"]
        mount {
          type   = "tmpfs"
          target = "/tmp"
        }
      }

      resources {
        cpu    = 1000
        memory = 512
      }
    }
  }
}

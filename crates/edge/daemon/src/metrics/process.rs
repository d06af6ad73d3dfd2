//! What the daemon itself uses, from /proc; names are those of every Prometheus client.

use std::fs;

use super::text::Text;

/// Ticks of a second in /proc: USER_HZ, the same on every Linux.
const TICKS: f64 = 100.0;

/// What the daemon uses. A file that cannot be read counts as nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Own {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_fds: f64,
    threads: f64,
    start_seconds: f64,
}

impl Own {
    /// Reads it.
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let mut own = Self::parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/stat"));
        own.open_fds = fs::read_dir("/proc/self/fd").map_or(0.0, |entries| entries.count() as f64);
        own
    }

    fn parse(stat: &str, status: &str, machine: &str) -> Self {
        // The name, in parentheses, may hold anything.
        let fields: Vec<f64> = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        // Fields are numbered from 1 in proc(5), and the first one here is the third.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
        let value = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        Self {
            cpu_seconds: (field(14) + field(15)) / TICKS,
            resident_bytes: value(status, "VmRSS:") * 1024.0,
            open_fds: 0.0,
            threads: field(20),
            start_seconds: value(machine, "btime") + field(22) / TICKS,
        }
    }

    /// Adds it to `text`.
    pub fn tell(&self, text: &mut Text) {
        let cpu = "Total user and system CPU time spent in seconds.";
        text.counter("process_cpu_seconds_total", cpu, &[], self.cpu_seconds);
        text.gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            &[],
            self.resident_bytes,
        );
        text.gauge("process_open_fds", "Number of open file descriptors.", &[], self.open_fds);
        text.gauge("process_threads", "Number of threads.", &[], self.threads);
        let start = "Start time of the process since unix epoch in seconds.";
        text.gauge("process_start_time_seconds", start, &[], self.start_seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_shifts_nothing() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 0 0 0 0 250 50 0 0 20 0 9 0 1200 1 2";
        let own = Own::parse(stat, "Name:\tx\nVmRSS:\t  2048 kB\n", "cpu 1\nbtime 1000\n");
        assert_eq!((own.cpu_seconds, own.threads, own.start_seconds), (3.0, 9.0, 1012.0));
        assert_eq!(own.resident_bytes, 2_097_152.0);
        assert_eq!(Own::parse("", "", ""), Own::default());
        assert!(Own::read().open_fds > 0.0);
    }
}

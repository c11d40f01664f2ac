//! The memory that this process may still use: what the machine has left, within the limits of containers, services and
//! the shell.

use std::path::Path;

/// Memory in bytes, as far as the system reports it; currently only on Linux.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Total memory of the machine.
    pub total: Option<u64>,
    /// Available memory, including caches that can be dropped.
    pub available: Option<u64>,
    /// The smallest limit on this process, if it is below the machine's memory.
    pub limit: Option<u64>,
    /// Most bytes that the limits leave.
    pub within_limits: Option<u64>,
}

impl Memory {
    /// The current state.
    pub fn now() -> Self {
        let total = kibibytes("/proc/meminfo", "MemTotal:");
        let mut limits = cgroups(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"));
        limits.extend(address_space());
        let set = || limits.iter().filter(|(limit, _)| total.is_none_or(|total| *limit < total));
        Self {
            total,
            available: kibibytes("/proc/meminfo", "MemAvailable:"),
            limit: set().map(|(limit, _)| *limit).min(),
            within_limits: set().map(|(limit, used)| limit.saturating_sub(*used)).min(),
        }
    }

    /// Bytes that this process can still use, if known.
    pub fn left(&self) -> Option<u64> {
        self.available.into_iter().chain(self.within_limits).min()
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The number after `key` in a file of lines such as `VmSize:  1234 kB`.
fn kibibytes(path: &str, key: &str) -> Option<u64> {
    let text = read(path);
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Limit and usage for `ulimit -v`.
fn address_space() -> Option<(u64, u64)> {
    let text = read("/proc/self/limits");
    let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit = line.split_whitespace().next()?.parse().ok()?;
    Some((limit, kibibytes("/proc/self/status", "VmSize:")?))
}

/// Limits and usage of the control groups named in `membership`, a `/proc/self/cgroup`, and of all groups above them.
/// Droppable file cache does not count as usage.
fn cgroups(root: &Path, membership: &str) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (base, [limit, used, droppable]) = match controllers {
            "" => (root.to_owned(), ["memory.max", "memory.current", "inactive_file"]),
            c if c.split(',').any(|c| c == "memory") => {
                (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"])
            }
            _ => continue,
        };
        // Inside a container the path may be the host's; the container's own group is then at the root.
        let inner = base.join(path.trim_start_matches('/'));
        let mut group = if inner.is_dir() { inner } else { base.clone() };
        loop {
            let number = |file: &str| read(group.join(file)).trim().parse::<u64>().ok();
            if let Some(limit) = number(limit) {
                let stat = read(group.join("memory.stat"));
                let entry = |line: &str| line.strip_prefix(droppable)?.trim().parse::<u64>().ok();
                let droppable = stat.lines().find_map(entry).unwrap_or(0);
                found.push((limit, number(used).unwrap_or(0).saturating_sub(droppable)));
            }
            if group == base || !group.pop() {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_and_those_above_them() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "70\n");
        write("a/memory.max", "1000\n");
        write("a/memory.current", "700\n");
        write("a/memory.stat", "anon 300\ninactive_file 250\nactive_file 20\n");
        write("memory/memory.limit_in_bytes", "5000\n");
        write("memory/memory.usage_in_bytes", "60\n");
        assert_eq!(cgroups(root.path(), "0::/a/b\n"), [(1000, 450)]);
        assert_eq!(cgroups(root.path(), "3:cpu:/x\n5:hugetlb,memory:/docker/1\n"), [(5000, 60)]);
        assert_eq!(cgroups(root.path(), "nonsense\n::\n"), []);
    }

    #[test]
    fn what_is_left_is_the_least() {
        let memory = Memory { available: Some(5), within_limits: Some(3), ..Memory::default() };
        assert_eq!((memory.left(), Memory::default().left()), (Some(3), None));
        if cfg!(target_os = "linux") {
            assert!(Memory::now().left().is_some_and(|left| left > 0));
        }
    }
}

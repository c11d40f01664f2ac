//! Memory that this process may take: what the system has left, and what a container allows.

use std::path::Path;

/// Bytes, where the system says so (Linux).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Of the machine.
    pub total: Option<u64>,
    /// What this process may still take: what is available on the machine, or within its control group if that is less.
    pub available: Option<u64>,
    /// The least limit of its control groups (version 1 or 2), where that is below what the machine has.
    pub limit: Option<u64>,
}

impl Memory {
    /// As it is now.
    pub fn now() -> Self {
        Self::below(Path::new("/"))
    }

    /// As the files below `root` say.
    fn below(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let info = text("proc/meminfo").unwrap_or_default();
        let kib = |key: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|n| n << 10)
        };
        let total = kib("MemTotal:");
        // Limit and room of each control group that the process is in, and of the groups around it.
        let mut groups: Vec<(u64, u64)> = Vec::new();
        let own = text("proc/self/cgroup").unwrap_or_default();
        let places = own.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let files = match controllers {
                "" => ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
                c if c.split(',').any(|c| c == "memory") => {
                    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                }
                _ => return None,
            };
            Some((path.trim_matches('/').to_owned(), files))
        });
        // Inside a container the path may be the one outside; its own group is the root then.
        for (path, (folder, limit, usage, cached)) in places {
            for place in Path::new(&path).ancestors() {
                let file = |name: &str| text(&format!("{folder}/{}/{name}", place.display()));
                let number = |name: &str| file(name)?.trim().parse::<u64>().ok();
                // `max` is no number. Without a limit, version 1 holds one larger than the memory.
                let Some(limit) = number(limit).filter(|&l| total.is_none_or(|total| l < total)) else { continue };
                let of = |line: &str| line.strip_prefix(cached)?.trim().parse::<u64>().ok();
                let reclaimed = file("memory.stat").and_then(|stat| stat.lines().find_map(of)).unwrap_or(0);
                let used = number(usage).unwrap_or(0).saturating_sub(reclaimed);
                groups.push((limit, limit.saturating_sub(used)));
            }
        }
        let available = kib("MemAvailable:").into_iter().chain(groups.iter().map(|g| g.1)).min();
        Self { total, available, limit: groups.iter().map(|g| g.0).min() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What is read where these files are.
    fn read(files: &[(&str, &str)]) -> Memory {
        let root = tempfile::tempdir().unwrap();
        let machine = [("proc/meminfo", "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  4194304 kB\n")];
        for (path, text) in machine.iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Memory::below(root.path())
    }

    #[test]
    fn containers_limit_what_is_available() {
        let free = Memory { total: Some(8192 * MIB), available: Some(4096 * MIB), limit: None };
        assert_eq!(read(&[]), free);
        let stat = "anon 5\ninactive_file 10485760\n";
        let second = [
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
            ("sys/fs/cgroup/memory.current", "115343360\n"),
            ("sys/fs/cgroup/memory.stat", stat),
        ];
        let limited = Memory { available: Some(412 * MIB), limit: Some(512 * MIB), ..free };
        assert_eq!(read(&second), limited, "version 2");
        let first = [
            ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "115343360\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 10485760\n"),
        ];
        assert_eq!(read(&first), limited, "version 1, its path outside");
        let inner = [
            ("proc/self/cgroup", "0::/slice/unit\n"),
            ("sys/fs/cgroup/slice/memory.max", "268435456\n"),
            ("sys/fs/cgroup/slice/unit/memory.max", "max\n"),
        ];
        assert_eq!(
            read(&inner),
            Memory { available: Some(256 * MIB), limit: Some(256 * MIB), ..free },
            "a group around it"
        );
        let none = [
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(read(&none), free, "no limit");
    }
}

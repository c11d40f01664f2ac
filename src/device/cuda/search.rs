//! Where the run-time compiler NVRTC may lie: also the build script looks there, so that tests know whether it is here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Names the one folder that holds NVRTC; nothing else is looked at then.
pub(crate) const FOLDER: &str = "VERILUME_NVRTC_DIR";

/// Files that NVRTC may be, newest first.
pub(crate) const NAMES: &[&str] =
    if cfg!(windows) { &["nvrtc64_130_0.dll", "nvrtc64_120_0.dll"] } else { &["libnvrtc.so.13", "libnvrtc.so.12"] };

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FoundLibraries {
    /// Folders that were looked at, those that exist.
    pub folders: Vec<PathBuf>,
    /// Libraries in them, in the order in which they are to be tried.
    pub files: Vec<PathBuf>,
    /// Whether a person named the folder: then the loader's path does not count.
    pub named: bool,
}

/// Looks through folders that `variable` names, Python's packages and the usual places below `root`.
pub(crate) fn look(variable: &dyn Fn(&str) -> Option<OsString>, root: &Path) -> FoundLibraries {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = path(FOLDER);
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Some(folder) = &named {
        folders.push(folder.clone());
    } else {
        let of_toolkit = if cfg!(windows) { ["bin/x64", "bin"] } else { ["lib64", "lib"] };
        let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(path);
        folders.extend(toolkits.flat_map(|home| of_toolkit.map(|lib| home.join(lib))));
        for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path) {
            folders.extend(wheels(&environment));
            folders.push(environment.join("lib"));
        }
        if let Some(home) = path("HOME") {
            folders.extend(wheels(&home.join(".local")));
        }
        folders.extend(["usr", "usr/local"].into_iter().flat_map(|place| wheels(&root.join(place))));
        folders.push(root.join("usr/local/cuda/lib64"));
    }
    folders.retain(|folder| folder.is_dir());
    let files = folders.iter().flat_map(|folder| NAMES.iter().map(|name| folder.join(name)));
    let files = files.filter(|file| file.is_file()).collect();
    FoundLibraries { folders, files, named: named.is_some() }
}

/// Folders of NVIDIA's Python packages below `prefix`, of newer Pythons first.
fn wheels(prefix: &Path) -> Vec<PathBuf> {
    let mut pythons: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(version) = name.to_str().and_then(|name| name.strip_prefix("python3")) {
            let minor = version.strip_prefix('.').and_then(|minor| minor.parse().ok()).unwrap_or(0);
            pythons.push((minor, entry.path()));
        }
    }
    pythons.sort_by(|a, b| b.cmp(a));
    let packages = pythons.iter().flat_map(|(_, lib)| ["site-packages", "dist-packages"].map(|p| lib.join(p)));
    packages.flat_map(|p| ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"].map(|lib| p.join(lib))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes an empty library.
    fn library(root: &Path, file: &str) -> PathBuf {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    }

    #[test]
    #[cfg(unix)]
    fn places_are_tried_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let wanted = [
            "toolkit/lib64/libnvrtc.so.12",
            "env/lib/python3.12/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
            "env/lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
            "conda/lib/libnvrtc.so.13",
            "home/.local/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13",
            "usr/lib/python3/dist-packages/nvidia/cu13/lib/libnvrtc.so.13",
            "usr/local/lib/python3.11/dist-packages/nvidia/cu13/lib/libnvrtc.so.13",
            "usr/local/cuda/lib64/libnvrtc.so.13",
            "usr/local/cuda/lib64/libnvrtc.so.12",
        ];
        let files: Vec<PathBuf> = wanted.iter().map(|file| library(root, file)).collect();
        let variable = |name: &str| {
            let place = match name {
                "CUDA_PATH" => "toolkit",
                "VIRTUAL_ENV" => "env",
                "CONDA_PREFIX" => "conda",
                "HOME" => "home",
                _ => return None,
            };
            Some(root.join(place).into_os_string())
        };
        let found = look(&variable, root);
        assert_eq!(found.files, files);
        assert!(!found.named);
        let nothing = look(&|_| None, &root.join("nowhere"));
        assert_eq!(nothing, FoundLibraries { folders: Vec::new(), files: Vec::new(), named: false });
    }

    #[test]
    fn a_named_folder_is_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        library(root, &format!("usr/local/cuda/lib64/{}", NAMES[0]));
        let own = library(root, &format!("own/{}", NAMES[1]));
        let named = |place: &'static str| look(&move |name| (name == FOLDER).then(|| root.join(place).into()), root);
        assert_eq!(named("own").files, [own]);
        assert_eq!(named("nowhere"), FoundLibraries { folders: Vec::new(), files: Vec::new(), named: true });
        let empty = look(&|name| (name == FOLDER).then(OsString::new), root);
        assert_eq!((empty.files.len(), empty.named), (1, false));
    }
}

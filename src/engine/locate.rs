//! Finds a model: a path, or `org/name` in the local Hugging Face cache. Nothing is downloaded.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The file or folder that `name` means.
///
/// # Errors
/// Neither a path nor a cached model: says where it looked.
pub fn locate(name: &str) -> Result<PathBuf> {
    let path = PathBuf::from(name);
    if path.exists() {
        return Ok(path);
    }
    let hub = hub_folder();
    if let (Some(hub), true) = (&hub, is_repository(name)) {
        let model = hub.join(format!("models--{}", name.replace('/', "--")));
        if let Some(snapshot) = snapshot(&model) {
            return Ok(snapshot);
        }
    }
    let looked = match hub.filter(|_| is_repository(name)) {
        Some(hub) => format!(" or in the Hugging Face cache {}", hub.display()),
        None => String::new(),
    };
    Err(Error::file(
        name,
        format!(
            "no such file or folder{looked}; give a folder with config.json or a .gguf file, or \
             leave --model-path out for the embedded default configuration"
        ),
    ))
}

/// `org/name`, both of the characters that the hub allows.
fn is_repository(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && !p.starts_with('.')
            && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/').is_some_and(|(org, model)| part(org) && part(model))
}

/// The cache as `huggingface_hub` finds it.
fn hub_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(hub) = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")) {
        return Some(hub);
    }
    if let Some(home) = set("HF_HOME") {
        return Some(home.join("hub"));
    }
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|h| h.join(".cache")))?;
    Some(cache.join("huggingface/hub"))
}

/// The snapshot that `refs/main` names, else the only one there is.
fn snapshot(model: &Path) -> Option<PathBuf> {
    let snapshots = model.join("snapshots");
    let named = std::fs::read_to_string(model.join("refs/main"))
        .ok()
        .map(|commit| snapshots.join(commit.trim()))
        .filter(|path| path.is_dir());
    named.or_else(|| {
        let mut found = std::fs::read_dir(&snapshots).ok()?.flatten().map(|e| e.path());
        found.next().filter(|_| found.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_are_told_from_paths() {
        assert!(is_repository("HuggingFaceTB/SmolLM2-135M"));
        for path in ["model", "../model", "/a/b", "a/b/c", "a/..", "a b/c"] {
            assert!(!is_repository(path), "{path}");
        }
    }

    #[test]
    fn the_snapshot_named_by_main_is_taken() {
        let dir = std::env::temp_dir().join(format!("pacer-locate-{}", std::process::id()));
        for commit in ["aa", "bb"] {
            std::fs::create_dir_all(dir.join("snapshots").join(commit)).unwrap();
        }
        assert_eq!(snapshot(&dir), None);
        std::fs::create_dir_all(dir.join("refs")).unwrap();
        std::fs::write(dir.join("refs/main"), "bb\n").unwrap();
        assert_eq!(snapshot(&dir), Some(dir.join("snapshots/bb")));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_missing_model_says_what_to_do() {
        let error = locate("no/such-model-here").unwrap_err();
        assert!(error.message.contains("--model-path"), "{error}");
    }
}

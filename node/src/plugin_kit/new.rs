//! A new plugin: a folder that builds and passes its tests as it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::sdk;

/// Longest name of a plugin.
const NAME_BYTES_MAX: usize = 64;

/// What a new plugin decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewHook {
    /// What a cache key consists of.
    CacheKey,
    /// By what responses are purged, and what writes purge.
    Invalidation,
}

/// The files of a new plugin of any hook. `{name}` and `{sdk_path}` are filled in.
const TEMPLATE: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.template")),
    (".cargo/config.toml", include_str!("template/cargo-config.toml.template")),
    (".gitignore", include_str!("template/gitignore.template")),
];

impl NewHook {
    /// The files that are the hook's own.
    fn template(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::CacheKey => [
                ("README.md", include_str!("template/README.md.template")),
                ("src/lib.rs", include_str!("template/lib.rs.template")),
            ],
            Self::Invalidation => [
                ("README.md", include_str!("template/invalidation-README.md.template")),
                ("src/lib.rs", include_str!("template/invalidation.rs.template")),
            ],
        }
    }
}

/// Why there is no new plugin. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    /// Plugins are named in configuration, in URLs and as crates.
    #[error("{name:?} cannot name a plugin: use 1 to {NAME_BYTES_MAX} of a-z, 0-9 and '-', beginning with a letter")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// The plugin would be the crate it depends on.
    #[error("{name:?} is the SDK's own name; choose another")]
    SdkName {
        /// What was asked for.
        name: String,
    },
    /// Nothing is overwritten.
    #[error("{} is there already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// `--sdk-path` leads elsewhere.
    #[error("{} is not the source of brim-sdk", path.display())]
    NotTheSdk {
        /// What was given.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes the folder `parent/name` with a plugin; returns its path.
///
/// The SDK is written beside the plugin's source, unless `sdk_path` says where it lies.
///
/// # Errors
/// A bad name, a folder that is there already, a wrong `sdk_path`, a disk that refuses.
pub fn new(parent: &Path, name: &str, hook: NewHook, sdk_path: Option<&Path>) -> Result<PathBuf, NewError> {
    check_name(name)?;
    let sdk_path_text = match sdk_path {
        Some(path) => sdk_at(path)?,
        None => sdk::FOLDER.to_owned(),
    };
    let folder = parent.join(name);
    // Creating it tells whether it was there, in one step.
    fs::create_dir_all(parent).map_err(|source| NewError::Write { path: parent.to_owned(), source })?;
    fs::create_dir(&folder).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => NewError::Exists { path: folder.clone() },
        _ => NewError::Write { path: folder.clone(), source },
    })?;

    let sdk_path_toml = toml::Value::from(sdk_path_text).to_string();
    for (path, text) in TEMPLATE.into_iter().chain(hook.template()) {
        write(&folder.join(path), &text.replace("{name}", name).replace("{sdk_path}", &sdk_path_toml))?;
    }
    if sdk_path.is_none() {
        let below = folder.join(sdk::FOLDER);
        for (path, text) in sdk::CRATES {
            write(&below.join(path), text)?;
        }
        for (path, text) in sdk::CONTRACT {
            write(&below.join("wit").join(path), text)?;
        }
    }
    Ok(folder)
}

fn check_name(name: &str) -> Result<(), NewError> {
    let fits = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !fits {
        return Err(NewError::Name { name: name.to_owned() });
    }
    if ["brim-sdk", "brim-sdk-macros"].contains(&name) {
        return Err(NewError::SdkName { name: name.to_owned() });
    }
    Ok(())
}

/// The absolute path of an SDK that is there.
fn sdk_at(path: &Path) -> Result<String, NewError> {
    let not_the_sdk = || NewError::NotTheSdk { path: path.to_owned() };
    let manifest = fs::read_to_string(path.join("Cargo.toml")).map_err(|_| not_the_sdk())?;
    let manifest: toml::Table = manifest.parse().map_err(|_| not_the_sdk())?;
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
    if name != Some("brim-sdk") {
        return Err(not_the_sdk());
    }
    let absolute = fs::canonicalize(path).map_err(|_| not_the_sdk())?;
    absolute.to_str().map(str::to_owned).ok_or_else(not_the_sdk)
}

fn write(path: &Path, text: &str) -> Result<(), NewError> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    written.map_err(|source| NewError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_anything_is_written() {
        let parent = tempfile::tempdir().expect("a folder");
        for name in ["", "Tenant", "1st", "a/b", "../a", "a_b", "ä", "brim-sdk", &"a".repeat(65)] {
            assert!(new(parent.path(), name, NewHook::CacheKey, None).is_err(), "{name:?}");
        }
        assert_eq!(fs::read_dir(parent.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let parent = tempfile::tempdir().expect("a folder");
        fs::create_dir(parent.path().join("mine")).expect("a folder");
        assert!(matches!(new(parent.path(), "mine", NewHook::CacheKey, None), Err(NewError::Exists { .. })));
        assert_eq!(fs::read_dir(parent.path().join("mine")).expect("a folder").count(), 0);
    }

    #[test]
    fn an_sdk_path_must_lead_to_the_sdk() {
        let parent = tempfile::tempdir().expect("a folder");
        assert!(matches!(
            new(parent.path(), "mine", NewHook::CacheKey, Some(parent.path())),
            Err(NewError::NotTheSdk { .. })
        ));
        let first = new(parent.path(), "first", NewHook::CacheKey, None).expect("a plugin");
        let second =
            new(parent.path(), "second", NewHook::Invalidation, Some(&first.join(sdk::FOLDER))).expect("a plugin");
        assert!(!second.join(sdk::FOLDER).exists());
        let manifest: toml::Table =
            fs::read_to_string(second.join("Cargo.toml")).expect("a file").parse().expect("TOML");
        let path = manifest["dependencies"]["brim-sdk"]["path"].as_str().expect("a path");
        assert_eq!(Path::new(path), fs::canonicalize(first.join(sdk::FOLDER)).expect("a folder"));
    }

    #[test]
    fn no_placeholder_is_left() {
        let parent = tempfile::tempdir().expect("a folder");
        for (name, hook) in [("key", NewHook::CacheKey), ("tags", NewHook::Invalidation)] {
            let folder = new(parent.path(), name, hook, None).expect("a plugin");
            for (path, _) in TEMPLATE.into_iter().chain(hook.template()) {
                let text = fs::read_to_string(folder.join(path)).expect("a file");
                assert!(!text.contains("{name}") && !text.contains("{sdk_path}"), "{path}");
            }
            assert!(folder.join("brim-sdk/wit/cache-key.wit").exists());
        }
    }
}

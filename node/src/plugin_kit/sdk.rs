//! The source of the SDK and of the contract, as this binary was built with.

/// Where the SDK lies in a new plugin.
pub(super) const FOLDER: &str = "brim-sdk";

/// A path below [`FOLDER`], and the file's text.
pub(super) type SourceFile = (&'static str, &'static str);

macro_rules! sources {
    ($root:literal: $($path:literal),+ $(,)?) => { [$(($path, include_str!(concat!($root, "/", $path)))),+] };
}

/// The crates `brim-sdk` and `brim-sdk-macros`.
pub(super) const CRATES: &[SourceFile] = &sources!("../../../sdk":
    "Cargo.toml",
    "macros/Cargo.toml",
    "macros/src/lib.rs",
    "src/arena.rs",
    "src/bindings.rs",
    "src/config.rs",
    "src/decision.rs",
    "src/guest.rs",
    "src/invalidation.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/query.rs",
    "src/request.rs",
    "src/rt.rs",
    "src/rule.rs",
    "src/testing.rs",
    "src/testing/json.rs",
    "src/worlds.rs",
);

/// The contract, to be read: the SDK's bindings are made from it. It lies in `wit` below [`FOLDER`].
pub(super) const CONTRACT: &[SourceFile] = &sources!("../../../wit":
    "cache-key.wit",
    "config.wit",
    "invalidation.wit",
    "log.wit",
    "meta.wit",
    "types.wit",
    "worlds.wit",
);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn files_below(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files_below(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).expect("below the root").display().to_string());
            }
        }
    }

    fn assert_complete(carried: &[SourceFile], root: &str, folders: &[&str]) {
        let root = Path::new(file!()).parent().expect("a folder").join(root);
        // `file!()` is relative to the workspace or to the package, or absolute, depending on how the crate is built.
        let tried = [root.clone(), Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&root)];
        let root = tried.iter().find(|root| root.exists()).expect("the sources").clone();
        let mut found = Vec::new();
        folders.iter().for_each(|folder| files_below(&root.join(folder), &root, &mut found));
        assert!(!found.is_empty());
        for path in found {
            assert!(carried.iter().any(|(carried, _)| *carried == path), "{path} is not carried");
        }
    }

    #[test]
    fn every_source_file_is_carried() {
        assert_complete(CRATES, "../../../sdk", &["src", "macros"]);
        assert_complete(CONTRACT, "../../../wit", &["."]);
    }
}

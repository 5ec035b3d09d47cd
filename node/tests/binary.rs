//! The binary as a command: versions, usage, exit codes.
//!
//! What it does while it serves is tested in `tests/it`. This file also makes `cargo test --workspace` build `brim`, which those
//! tests run.

use std::process::{Command, Output};

fn brim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_brim")).args(arguments).env_remove("BRIM_TOKEN").output().expect("the binary runs")
}

#[test]
fn version_and_help_are_answers() {
    let version = brim(&["--version"]);
    assert!(version.status.success());
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("brim {}\n", env!("CARGO_PKG_VERSION")));
    let help = brim(&["--help"]);
    assert!(help.status.success());
    for command in ["serve", "check", "demo", "demo-origin", "purge", "plugin", "status"] {
        assert!(String::from_utf8_lossy(&help.stdout).contains(command), "{command}");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_a_failure_with_1() {
    for arguments in
        [&[][..], &["sideways"], &["serve"], &["purge", "url"], &["purge", "all", "--token", "t", "--admin", "nowhere"]]
    {
        assert_eq!(brim(arguments).status.code(), Some(2), "{arguments:?}");
    }
    for arguments in [&["check", "-c", "/nonexistent.toml"][..], &["serve", "-c", "/nonexistent.toml"]] {
        let output = brim(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent.toml"), "{arguments:?}");
    }
}

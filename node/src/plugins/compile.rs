//! Compiling a component, away from the node.
//!
//! A hostile component can make a compiler run for very long or take much memory, and wasmtime does not count that as a
//! fault of its own. So the binary starts itself again as `brim compile-plugin`: the component goes in by stdin, the
//! compiled module comes out by stdout, and what it costs is bounded three ways.
//!
//! Always true:
//! - The child sets its limits on processor time and address space before it reads the first byte of the component.
//! - The parent kills it at [`COMPILE_DEADLINE`], also when the future is dropped.
//! - The parent reads at most [`COMPILED_BYTES_MAX`] of it.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use brim_host::HostConfig;
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// Wall-clock time of one compilation. A large component of another language (12 MB) takes 5 s here.
pub(super) const COMPILE_DEADLINE: Duration = Duration::from_secs(60);
/// Processor time of one compilation, over all threads of the child.
pub(super) const COMPILE_CPU_SECONDS_MAX: u64 = 60;
/// Address space of the child, which bounds its memory.
pub(super) const COMPILE_ADDRESS_SPACE_MAX: u64 = 4 << 30;
/// Size of a compiled module. The largest measured had 37 MB.
pub(super) const COMPILED_BYTES_MAX: u64 = 256 << 20;
/// Size of a component that the child reads at all; the configured bound is checked before.
const COMPONENT_BYTES_CEILING: usize = 256 << 20;
/// How much of the child's complaint is kept.
const COMPLAINT_BYTES_MAX: u64 = 8 << 10;

/// Where components are compiled.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// In a limited child process: the way of the node.
    Child(ChildCompiler),
    /// In this process, unlimited: for tests, whose executable is not `brim`.
    InProcess,
}

/// The command that compiles, and how long it may take.
#[derive(Debug, Clone)]
pub struct ChildCompiler {
    /// The executable, called with the one argument `compile-plugin`.
    pub program: PathBuf,
    /// When it is killed.
    pub deadline: Duration,
}

impl Compiler {
    /// This very executable, also when its file was replaced by a newer one since it started.
    pub fn this_executable() -> Compiler {
        Compiler::program("/proc/self/exe".into())
    }

    /// Another executable that is `brim`.
    pub fn program(program: PathBuf) -> Compiler {
        Compiler::Child(ChildCompiler { program, deadline: COMPILE_DEADLINE })
    }

    /// The compiled module, or why there is none.
    pub(super) async fn compile(&self, component: Bytes) -> Result<Vec<u8>, String> {
        match self {
            Compiler::Child(child) => child.compile(component).await,
            Compiler::InProcess => {
                let compiled = tokio::task::spawn_blocking(move || compile(&component));
                compiled.await.unwrap_or_else(|_| Err("the compiler panicked".to_owned()))
            }
        }
    }
}

impl ChildCompiler {
    async fn compile(&self, component: Bytes) -> Result<Vec<u8>, String> {
        let mut child = tokio::process::Command::new(&self.program)
            .arg("compile-plugin")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("the compiler could not be started: {error}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let work = async {
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A child that ends early closes the pipe; its exit status says why.
                    let _ = stdin.write_all(&component).await;
                }
            };
            let ((), compiled, complaint) =
                tokio::join!(feed, read_bounded(stdout, COMPILED_BYTES_MAX), read_bounded(stderr, COMPLAINT_BYTES_MAX));
            // A child that still writes beyond the bound would wait for us for ever.
            if compiled.len() as u64 > COMPILED_BYTES_MAX {
                return Err(format!("the compiled module has more than {COMPILED_BYTES_MAX} bytes"));
            }
            let status = child.wait().await.map_err(|error| format!("the compiler was lost: {error}"))?;
            if status.success() { Ok(compiled) } else { Err(explain(status, &complaint)) }
        };
        match tokio::time::timeout(self.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(format!("compiling took longer than {:?}", self.deadline)),
        }
    }
}

/// Reads to the end, or one byte beyond the bound.
async fn read_bounded(source: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(source) = source {
        // What a dying child leaves unsaid is told by its exit status.
        let _ = source.take(bytes_max + 1).read_to_end(&mut bytes).await;
    }
    bytes
}

fn explain(status: ExitStatus, complaint: &[u8]) -> String {
    use std::os::unix::process::ExitStatusExt;
    let complaint = String::from_utf8_lossy(complaint);
    let complaint = complaint.trim();
    match status.signal() {
        Some(signal) if signal == Signal::XCPU.as_raw() => {
            format!("compiling used more than {COMPILE_CPU_SECONDS_MAX} s of processor time")
        }
        Some(signal) => format!(
            "the compiler was ended by signal {signal} (its address space is limited to {COMPILE_ADDRESS_SPACE_MAX} bytes): {complaint}"
        ),
        None if complaint.is_empty() => format!("the compiler ended with {status}"),
        None => complaint.to_owned(),
    }
}

/// The child's side, `brim compile-plugin`: limits first, then component in, compiled module out. Returns the exit status.
pub fn compile_in_child() -> u8 {
    let outcome = limit_this_process()
        .and_then(|()| read_component())
        .map_err(|error| error.to_string())
        .and_then(|component| compile(&component))
        .and_then(|compiled| write_compiled(&compiled).map_err(|error| error.to_string()));
    match outcome {
        Ok(()) => 0,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "{reason}");
            1
        }
    }
}

fn compile(component: &[u8]) -> Result<Vec<u8>, String> {
    // The configured bound was checked by who sent it.
    let config = HostConfig { component_bytes_max: COMPONENT_BYTES_CEILING, ..HostConfig::default() };
    brim_host::compile(&config, component).map_err(|refused| refused.to_string())
}

fn limit_this_process() -> io::Result<()> {
    let limits = [
        (Resource::Cpu, COMPILE_CPU_SECONDS_MAX),
        (Resource::As, COMPILE_ADDRESS_SPACE_MAX),
        (Resource::Core, 0),
        // Nothing of this is written to a file, unless somebody tries it by hand.
        (Resource::Fsize, COMPILED_BYTES_MAX),
    ];
    for (resource, max) in limits {
        // One second more as the hard limit: the soft one ends the child with a signal of its own.
        let hard = if resource == Resource::Cpu { max + 1 } else { max };
        // What is stricter already stays: a hard limit cannot be raised.
        let inherited = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(max.min(inherited)), maximum: Some(hard.min(inherited)) })?;
    }
    Ok(())
}

fn read_component() -> io::Result<Vec<u8>> {
    let mut component = Vec::new();
    io::stdin().lock().take(COMPONENT_BYTES_CEILING as u64 + 1).read_to_end(&mut component)?;
    Ok(component)
}

fn write_compiled(compiled: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(compiled)?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A stand-in for `brim compile-plugin`.
    fn script(text: &str) -> (tempfile::TempDir, ChildCompiler) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("compiler");
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
        (dir, ChildCompiler { program, deadline: Duration::from_secs(10) })
    }

    async fn compile(text: &str) -> Result<Vec<u8>, String> {
        let (_dir, child) = script(text);
        child.compile(Bytes::from_static(b"component")).await
    }

    #[tokio::test]
    async fn the_child_answers_with_the_module() {
        assert_eq!(compile("test \"$1\" = compile-plugin && exec /bin/cat").await, Ok(b"component".to_vec()));
    }

    #[tokio::test]
    async fn the_childs_reason_is_passed_on() {
        assert_eq!(
            compile("/bin/cat >/dev/null; echo 'function 7 does not validate' >&2; exit 1").await.unwrap_err(),
            "function 7 does not validate"
        );
    }

    #[tokio::test]
    async fn a_child_that_dies_is_named() {
        assert!(compile("kill -XCPU $$").await.unwrap_err().contains("processor time"));
        assert!(compile("kill -ABRT $$").await.unwrap_err().contains("signal 6"));
    }

    #[tokio::test]
    async fn a_child_that_does_not_end_is_killed() {
        let (_dir, mut child) = script("exec /bin/sleep 100");
        child.deadline = Duration::from_millis(50);
        let error = child.compile(Bytes::from_static(b"component")).await.unwrap_err();
        assert!(error.contains("longer than"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let child = ChildCompiler { program: "/nonexistent/brim".into(), deadline: Duration::from_secs(1) };
        assert!(child.compile(Bytes::new()).await.unwrap_err().contains("could not be started"));
    }
}

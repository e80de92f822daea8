//! Runs an untrusted program with limits: a clean environment, its own working folder and process
//! group, bounded memory and CPU time, captured output.
//!
//! The group is killed when the program exits or is cancelled, so that no forked process survives,
//! and when the trainer dies.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::channel::oneshot;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// Number of bytes kept of each output stream: the last ones.
const KEPT: usize = 16 * 1024;

/// How long the output is read after the program exited: a process that left the group may keep
/// the pipe open forever.
const DRAIN: Duration = Duration::from_secs(1);

/// The program to run, and its limits.
#[derive(Debug, Clone, Default)]
pub(super) struct Program {
    /// Program and arguments, relative to the folder where the run was started.
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Bytes of address space; 0 is unlimited.
    pub memory: u64,
    /// Seconds of CPU time; 0 is unlimited.
    pub cpu_seconds: u64,
    /// A file in its working folder: name and content.
    pub file: Option<(&'static str, String)>,
}

/// Exit status and output of a program.
#[derive(Debug, Clone)]
pub(super) struct Exit {
    pub success: bool,
    /// `exit code 1`, `signal 9`.
    pub status: String,
    /// The end of its standard output.
    pub output: String,
    /// The end of its standard error.
    pub errors: String,
}

impl Exit {
    /// An error message with the last line of standard error.
    pub fn sentence(&self, program: &str) -> String {
        match last_line(&self.errors) {
            Some(line) => format!("{program} ended with {}: {line}", self.status),
            None => format!("{program} ended with {} and wrote no error", self.status),
        }
    }
}

/// The last line that is not blank.
pub(super) fn last_line(text: &str) -> Option<&str> {
    text.lines().rev().map(str::trim).find(|line| !line.is_empty())
}

/// A running program. Dropping it kills the program and its process group.
pub(super) struct Running {
    exit: oneshot::Receiver<Result<Exit, String>>,
    /// Dropping it kills the program.
    _kill: oneshot::Sender<()>,
}

impl Running {
    /// Starts `program` on `runtime`. [`Running::ended`] returns errors of the start.
    pub fn start(runtime: &Handle, program: Program) -> Self {
        let (done, exit) = oneshot::channel();
        let (kill, killed) = oneshot::channel();
        // Start on a runtime thread: the parent-death signal is tied to the starting thread, and
        // runtime threads live as long as the run.
        runtime.spawn(async move {
            let name = program.command.first().cloned().unwrap_or_default();
            let result = run(program, killed).await;
            let _ = done.send(result.map_err(|error| format!("{name} cannot be run: {error}")));
        });
        Self { exit, _kill: kill }
    }

    /// Waits for the program to exit. Cancel-safe.
    ///
    /// # Errors
    /// The program could not be started.
    pub async fn ended(&mut self) -> Result<Exit, String> {
        let lost = || Err("the server of this run is shutting down".to_owned());
        (&mut self.exit).await.unwrap_or_else(|_| lost())
    }
}

async fn run(program: Program, killed: oneshot::Receiver<()>) -> io::Result<Exit> {
    let folder = tempfile::Builder::new().prefix("leyden-agent-").tempdir()?;
    if let Some((name, content)) = &program.file {
        tokio::fs::write(folder.path().join(name), content).await?;
    }
    let mut child = command(&program, folder.path())?.spawn()?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let output = tokio::spawn(tail(child.stdout.take()));
    let errors = tokio::spawn(tail(child.stderr.take()));
    let status = end(&mut child, group, killed).await?;
    let text = |tail: tokio::task::JoinHandle<Vec<u8>>| async {
        let read = tokio::time::timeout(DRAIN, tail).await;
        let bytes = read.ok().and_then(Result::ok).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (output, errors) = tokio::join!(text(output), text(errors));
    Ok(Exit { success: status.success(), status: describe(status), output, errors })
}

/// Waits until the child exits or is to be killed, then kills the rest of its group.
async fn end(
    child: &mut Child,
    group: Option<i32>,
    killed: oneshot::Receiver<()>,
) -> io::Result<ExitStatus> {
    let kill = || {
        if let Some(group) = group {
            // SAFETY: a system call on integers. The group's id is that of its leader, which is
            // either not yet reaped or was reaped just now; remaining members prevent its reuse.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
    };
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = killed => {
            kill();
            child.wait().await?
        }
    };
    kill();
    Ok(status)
}

fn command(program: &Program, folder: &Path) -> io::Result<Command> {
    let Some((name, arguments)) = program.command.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
    };
    let mut command = Command::new(absolute(name));
    command
        .args(arguments.iter().map(|argument| absolute(argument)))
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let limits = [(libc::RLIMIT_AS, program.memory), (libc::RLIMIT_CPU, program.cpu_seconds)];
    // SAFETY: between fork and exec it makes only async-signal-safe system calls on integers.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            limit(libc::RLIMIT_CORE, 0)?;
            for (resource, most) in limits.iter().filter(|(_, most)| *most > 0) {
                limit(*resource, *most)?;
            }
            Ok(())
        });
    }
    Ok(command)
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: a system call that reads a structure of our own.
    match unsafe { libc::setrlimit(resource, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes paths of existing files absolute, because the program has its own working folder; other
/// arguments are unchanged.
fn absolute(argument: &str) -> PathBuf {
    let path = Path::new(argument);
    let is_file = path.is_relative() && argument.contains(['/', '.']) && path.is_file();
    // Not canonicalised: a virtual environment's Python is a symlink that must be kept.
    if is_file { std::path::absolute(path).unwrap_or_else(|_| path.into()) } else { path.into() }
}

/// Reads a stream to its end and keeps the last bytes.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    kept.drain(..kept.len().saturating_sub(KEPT));
    kept
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(libc::SIGXCPU)) => "signal 24 (CPU time limit exceeded)".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Program { command, ..Program::default() }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    fn end_of(program: Program) -> Result<Exit, String> {
        let runtime = runtime();
        let mut running = Running::start(runtime.handle(), program);
        runtime.block_on(running.ended())
    }

    #[test]
    fn output_and_status_are_kept() {
        let exit = end_of(shell("echo 42; echo no such table >&2; exit 3")).unwrap();
        assert!(!exit.success);
        assert_eq!(exit.output, "42\n");
        assert_eq!(exit.sentence("agent"), "agent ended with exit code 3: no such table");
        let error = end_of(Program { command: vec!["/no/such".to_owned()], ..shell("") });
        assert!(error.unwrap_err().starts_with("/no/such cannot be run"));
    }

    #[test]
    fn long_output_is_truncated_to_its_end() {
        let exit = end_of(shell("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"));
        let output = exit.unwrap().output;
        assert!(output.len() <= KEPT && output.ends_with("line 19999\n"), "{}", output.len());
    }

    #[test]
    fn environment_and_working_folder_are_isolated() {
        let mut program = shell("env; pwd; cat task.json");
        program.environment = vec![("TASK".to_owned(), "7".to_owned())];
        program.file = Some(("task.json", "{}".to_owned()));
        let output = end_of(program).unwrap().output;
        assert!(output.contains("TASK=7") && output.contains("leyden-agent-"), "{output}");
        assert!(output.ends_with("{}") && !output.contains("CARGO"), "{output}");
    }

    /// A named pipe. Its reader gets EOF when the last writing process has exited.
    fn named_pipe(folder: &Path) -> PathBuf {
        let path = folder.join("alive");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a system call on a valid C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        path
    }

    #[test]
    fn forked_processes_are_killed_at_exit() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = named_pipe(folder.path());
        let runtime = runtime();
        let script = format!("exec 3>{}; echo up >&3; sleep 1000 & exit 0", pipe.display());
        let mut running = Running::start(runtime.handle(), shell(&script));
        let mut alive = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::open(&pipe).unwrap(), &mut alive)
            .unwrap();
        assert_eq!(alive, "up\n");
        assert!(runtime.block_on(running.ended()).unwrap().success);
    }

    #[test]
    fn dropping_a_running_program_kills_it() {
        let runtime = runtime();
        let folder = tempfile::tempdir().unwrap();
        let pipe = named_pipe(folder.path());
        let script = format!("exec 3>{}; echo up >&3; sleep 1000", pipe.display());
        let running = Running::start(runtime.handle(), shell(&script));
        let mut alive = std::io::BufReader::new(std::fs::File::open(&pipe).unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut alive, &mut line).unwrap();
        assert_eq!(line, "up\n");
        drop(running);
        assert_eq!(std::io::Read::read_to_string(&mut alive, &mut line).unwrap(), 0);
    }

    #[test]
    fn processor_time_is_limited() {
        let program = Program { cpu_seconds: 1, ..shell("while :; do :; done") };
        let exit = end_of(program).unwrap();
        assert!(!exit.success && exit.status.contains("signal"), "{exit:?}");
    }
}

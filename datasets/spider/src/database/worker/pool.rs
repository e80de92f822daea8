//! The parent's side: processes that wait for queries, and the deadline of each query.

use std::ffi::OsString;
use std::io::{self, BufReader, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::frame::{receive, send};
use super::{Done, Request, Work};
use crate::database::check::{Check, Checked};
use crate::database::limits::{Limits, QueryError};
use crate::database::sandbox::ResultSet;

/// How long a worker may take to report that it stopped a query itself.
const GRACE: Duration = Duration::from_millis(50);

/// How long a new worker may take until it answers; its program may load large libraries.
const START: Duration = Duration::from_secs(60);

/// A pool of processes that run queries, as many as the machine has cores.
#[derive(Debug)]
pub struct Workers {
    program: PathBuf,
    arguments: Vec<OsString>,
    most: usize,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Worker>,
    /// Workers that run a query.
    busy: usize,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    stream: BufReader<UnixStream>,
    /// The read timeout that the stream has.
    timeout: Duration,
}

/// How a query ended.
enum Ended {
    Answered(Done),
    TooLate,
    /// The process is gone; how it ended.
    Died(String),
}

impl Workers {
    /// A pool of `program`, which calls [`serve`](super::serve) when it is started with
    /// `arguments`. Processes are started as they are needed.
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            most: std::thread::available_parallelism().map_or(2, usize::from),
            pool: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    /// Runs the one statement of `sql` on the file `database` within `limits`.
    ///
    /// # Errors
    /// Whatever stops it; see [`QueryError`].
    pub fn query(
        &self,
        database: &Path,
        sql: &str,
        limits: &Limits,
    ) -> Result<ResultSet, QueryError> {
        match self.run(database, limits, Work::Query(sql.to_owned()))? {
            Done::Query(result) => result,
            _ => Err(confused()),
        }
    }

    /// Compares the results of two queries on the file `database`; each has `limits`.
    ///
    /// # Errors
    /// Where the comparison as a whole was stopped, or could not be begun.
    pub fn check(
        &self,
        database: &Path,
        queries: &Check,
        limits: &Limits,
    ) -> Result<Checked, QueryError> {
        match self.run(database, limits, Work::Check(queries.clone()))? {
            Done::Check(checked) => Ok(checked),
            _ => Err(confused()),
        }
    }

    /// Work whose process ends is run once more in a new one, since the reason may have come from
    /// outside.
    fn run(&self, database: &Path, limits: &Limits, work: Work) -> Result<Done, QueryError> {
        let database = std::path::absolute(database)
            .map_err(|error| QueryError::Database(error.to_string()))?;
        let request = Request { database, limits: limits.clone(), work };
        let mut how = String::new();
        for _ in 0..2 {
            match self.ask(&request)? {
                Ended::Answered(Done::NotOpened(error)) => return Err(error),
                Ended::Answered(done) => return Ok(done),
                Ended::TooLate => return Err(QueryError::Time(limits.time)),
                Ended::Died(reason) => how = reason,
            }
        }
        Err(QueryError::Crashed(how))
    }

    /// Has one worker run the request; waits for one if all are busy.
    fn ask(&self, request: &Request) -> Result<Ended, QueryError> {
        let lock = || self.pool.lock().unwrap_or_else(|e| e.into_inner());
        let mut pool = lock();
        while pool.busy >= self.most {
            pool = self.returned.wait(pool).unwrap_or_else(|e| e.into_inner());
        }
        pool.busy += 1;
        let idle = pool.idle.pop();
        drop(pool);
        let run = |mut worker: Worker| {
            let ended = worker.run(request);
            let reusable = matches!(ended, Ended::Answered(_));
            (ended, reusable.then_some(worker))
        };
        let ran = idle.map_or_else(|| self.start(), Ok).map(run);
        let (result, worker) = match ran {
            Ok((ended, worker)) => (Ok(ended), worker),
            Err(error) => {
                let program = self.program.display();
                let what = format!("the worker process {program} cannot be started: {error}");
                (Err(QueryError::Database(what)), None)
            }
        };
        let mut pool = lock();
        pool.busy -= 1;
        pool.idle.extend(worker);
        drop(pool);
        self.returned.notify_one();
        result
    }

    fn start(&self) -> io::Result<Worker> {
        let (stream, other) = UnixStream::pair()?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::from(OwnedFd::from(other)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Set by leyden for libtorch; here freed memory should go back to the system.
            .env_remove("MALLOC_MMAP_THRESHOLD_")
            .env_remove("MALLOC_TRIM_THRESHOLD_")
            // Ctrl-C is for the parent, which ends its workers by closing their streams.
            .process_group(0)
            .spawn()?;
        stream.set_read_timeout(Some(START))?;
        let mut worker = Worker { child, stream: BufReader::new(stream), timeout: START };
        receive::<()>(&mut worker.stream)?;
        Ok(worker)
    }
}

impl Worker {
    fn run(&mut self, request: &Request) -> Ended {
        match self.ask(request) {
            Ok(response) => Ended::Answered(response),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ended::TooLate
            }
            Err(error) => self.end(&error),
        }
    }

    fn ask(&mut self, request: &Request) -> io::Result<Done> {
        let deadline = (request.limits.time * request.work.queries()).saturating_add(GRACE);
        if self.timeout != deadline {
            self.stream.get_ref().set_read_timeout(Some(deadline))?;
            self.timeout = deadline;
        }
        send(self.stream.get_ref(), request)?;
        receive(&mut self.stream)
    }

    /// How the process ended; `error` is what its stream gave.
    fn end(&mut self, error: &io::Error) -> Ended {
        let _ = self.child.kill();
        match self.child.wait() {
            Ok(status) if status.signal() == Some(libc::SIGXCPU) => Ended::TooLate,
            Ok(status) => Ended::Died(status.to_string()),
            Err(_) => Ended::Died(error.to_string()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It holds nothing that a kill could lose.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker of another version of this program.
fn confused() -> QueryError {
    QueryError::Database("the worker process answered another question".to_owned())
}

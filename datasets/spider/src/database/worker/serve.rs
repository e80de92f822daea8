//! The worker's side: one query at a time, under the limits of a process.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ffi};

use super::frame::{receive, send};
use super::{Done, Request, Work};
use crate::database::check::{Checked, check};
use crate::database::limits::{Limits, QueryError};
use crate::database::sandbox::{open, run};

/// Connections that a worker keeps; each caches up to 2 MB of its file.
const CONNECTIONS: usize = 32;

/// Address space beyond SQLite's heap: the result, in three forms, and the caches.
const SPARE_BYTES: usize = 512 << 20;

/// Seconds of CPU time beyond the limit of a query's time before the kernel ends the process.
const SPARE_SECONDS: u64 = 2;

/// Answers the queries of the parent process, which come over standard input, until it closes it.
///
/// # Errors
/// Where standard input is not the socket of a pool.
pub fn serve() -> io::Result<()> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    send(&stream, &())?;
    let mut requests = BufReader::new(&stream);
    let (mut connections, mut first) = (VecDeque::new(), true);
    loop {
        let request: Request = match receive(&mut requests) {
            Ok(request) => request,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        if std::mem::take(&mut first) {
            limit_address_space(request.limits.memory)?;
        }
        limit_cpu_time(request.limits.time * request.work.queries())?;
        send(&stream, &answer(&mut connections, &request))?;
    }
}

fn answer(connections: &mut VecDeque<(PathBuf, Connection)>, request: &Request) -> Done {
    let connection = match take(connections, &request.database) {
        Some(connection) => connection,
        None => match open(&request.database) {
            Ok(connection) => connection,
            Err(error) => return Done::NotOpened(QueryError::Database(error.to_string())),
        },
    };
    limit_heap(&request.limits);
    let done = match &request.work {
        Work::Query(sql) => Done::Query(run(&connection, sql, &request.limits)),
        Work::Check(queries) => Done::Check(check(&connection, queries, &request.limits)),
    };
    // A connection that was refused memory is closed, and its caches with it.
    let refused = |error: &QueryError| matches!(error, QueryError::Memory(_));
    let keep = match &done {
        Done::Query(Err(error))
        | Done::Check(Checked::Failed(error) | Checked::GoldFailed(error)) => !refused(error),
        _ => true,
    };
    if keep {
        if connections.len() == CONNECTIONS {
            connections.pop_front();
        }
        connections.push_back((request.database.clone(), connection));
    }
    done
}

/// The connection to `path`, if it is open.
fn take(connections: &mut VecDeque<(PathBuf, Connection)>, path: &Path) -> Option<Connection> {
    let index = connections.iter().rposition(|(known, _)| known == path)?;
    connections.remove(index).map(|(_, connection)| connection)
}

fn limit_heap(limits: &Limits) {
    let most = i64::try_from(limits.memory).unwrap_or(i64::MAX);
    // SAFETY: both may be called at any time; this process runs one query at a time.
    unsafe {
        let used = ffi::sqlite3_memory_used();
        ffi::sqlite3_hard_heap_limit64(used.saturating_add(most));
    }
}

/// Bounds the address space at what the process has mapped by now, its libraries, and `memory`.
fn limit_address_space(memory: usize) -> io::Result<()> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    // SAFETY: no arguments beyond the name.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as usize;
    set_limit(libc::RLIMIT_AS, (pages * page + memory + SPARE_BYTES) as u64)
}

fn limit_cpu_time(time: Duration) -> io::Result<()> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a valid place for the result, which is plain data.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let spent = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec).max(0) as u64;
    set_limit(libc::RLIMIT_CPU, spent + time.as_secs() + SPARE_SECONDS)
}

/// Sets the soft limit, as far as the hard one allows.
fn set_limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result and a valid argument.
    let failed = unsafe {
        libc::getrlimit(resource, &mut limit) != 0 || {
            limit.rlim_cur = most.min(limit.rlim_max);
            libc::setrlimit(resource, &limit) != 0
        }
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

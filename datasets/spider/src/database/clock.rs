//! A clock that stands still, so that scores do not depend on the day of the run.
//!
//! `date('now')`, `current_timestamp` and their relatives read the clock of the VFS that a
//! connection was opened with. Here that VFS is SQLite's own with another clock: computed
//! arguments such as `'n' || 'ow'` are covered too, which a check of the statement would miss.
//! The modifier `localtime` depends on the machine's time zone; for the whole process it is
//! taken as UTC.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use rusqlite::ffi;

/// Name of the VFS.
pub(super) const VFS: &str = "leyden-fixed-clock";
const VFS_C: &std::ffi::CStr = c"leyden-fixed-clock";

/// 2018-09-24 00:00:00 UTC, the year Spider was published, as a Julian day in milliseconds.
const NOW: i64 = 212_404_507_200_000;

/// Registers the VFS [`VFS`], once per process.
///
/// # Errors
/// SQLite's result code where it refuses.
pub(super) fn register() -> Result<(), c_int> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    match *REGISTERED.get_or_init(register_once) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    }
}

fn register_once() -> c_int {
    // SAFETY: the call initialises SQLite and returns its default VFS, or null.
    let default = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    if default.is_null() {
        return ffi::SQLITE_ERROR;
    }
    // SAFETY: a registered VFS stays valid for the life of the process, and is plain data.
    let mut vfs = Box::new(unsafe { *default });
    vfs.pNext = std::ptr::null_mut();
    vfs.zName = VFS_C.as_ptr();
    vfs.xCurrentTime = Some(current_time);
    vfs.xCurrentTimeInt64 = Some(current_time_int64);
    // SAFETY: `vfs` is leaked, as registration requires. The test control takes an int and a
    // function of this signature, and is documented as callable at any time.
    unsafe {
        let alternative: unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int = utc;
        ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_LOCALTIME_FAULT, 2 as c_int, alternative);
        ffi::sqlite3_vfs_register(Box::leak(vfs), 0)
    }
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, days: *mut f64) -> c_int {
    // SAFETY: SQLite passes a valid place for the result.
    unsafe { *days = NOW as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(_: *mut ffi::sqlite3_vfs, ms: *mut i64) -> c_int {
    // SAFETY: as above.
    unsafe { *ms = NOW };
    ffi::SQLITE_OK
}

/// Stands in for `localtime_r`.
unsafe extern "C" fn utc(time: *const c_void, broken_down: *mut c_void) -> c_int {
    // SAFETY: SQLite passes a `time_t` and a `struct tm`.
    let result = unsafe { libc::gmtime_r(time.cast(), broken_down.cast()) };
    c_int::from(result.is_null())
}

//! A layer above SQLite's own file system functions (a VFS).
//!
//! It forwards every operation to the system's VFS. For the files of watched folders it also
//! reports writes, truncations, syncs and deletions, and refuses writes for which there is no
//! space. Real syncs are left out, because the machine of a test keeps its power.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, OnceLock};

use rusqlite::ffi::{
    SQLITE_FULL, SQLITE_OK, sqlite3_file, sqlite3_filename, sqlite3_initialize, sqlite3_int64,
    sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use super::Watched;

/// SQLite's file object of the layer; the system's follows it in memory.
#[repr(C)]
struct File {
    /// The part that SQLite knows.
    base: sqlite3_file,
    /// The system's file.
    real: *mut sqlite3_file,
    /// Where it is, if its folder is watched. Owned; freed on close.
    watched: *mut Place,
}

struct Place {
    folder: Arc<Watched>,
    path: PathBuf,
}

/// The layer and the VFS below it.
struct Layer {
    below: *mut sqlite3_vfs,
    own: *mut sqlite3_vfs,
}

// SAFETY: SQLite's VFS objects are never changed after their registration and may be used by all
// threads.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

static LAYER: OnceLock<Layer> = OnceLock::new();

/// Makes the layer the default VFS of this process, once.
pub(crate) fn register() {
    LAYER.get_or_init(|| {
        // SAFETY: the functions are called as SQLite documents; the layer's VFS is a copy of the
        // system's, whose functions accept it because they only use `pAppData`, and lives forever.
        unsafe {
            assert_eq!(sqlite3_initialize(), SQLITE_OK);
            let below = sqlite3_vfs_find(ptr::null());
            assert!(!below.is_null(), "SQLite has a VFS");
            let mut own = *below;
            own.szOsFile += c_int::try_from(size_of::<File>()).expect("a small size");
            own.zName = c"power-cut".as_ptr();
            own.pNext = ptr::null_mut();
            own.xOpen = Some(open);
            own.xDelete = Some(delete);
            let own = Box::into_raw(Box::new(own));
            let layer = Layer { below, own };
            assert_eq!(sqlite3_vfs_register(layer.own, 1), SQLITE_OK);
            layer
        }
    });
}

fn below() -> *mut sqlite3_vfs {
    LAYER.get().map_or(ptr::null_mut(), |layer| layer.below)
}

/// Version 2 has the shared memory of write-ahead logs and no memory-mapped reading.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// As SQLite's `xOpen`: `file` has `szOsFile` bytes, `name` is null or a path.
unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite provides the memory of both objects, the system's after the layer's, whose
    // size is a multiple of the alignment.
    unsafe {
        let own = file.cast::<File>();
        let real = own.add(1).cast::<sqlite3_file>();
        (*own).base.pMethods = ptr::null();
        (*own).real = real;
        (*own).watched = ptr::null_mut();
        let below = below();
        let code = (*below).xOpen.expect("xOpen")(below, name, real, flags, out_flags);
        if code != SQLITE_OK {
            return code;
        }
        (*own).base.pMethods = &METHODS;
        if let Some(path) = path(name)
            && let Some(folder) = Watched::of(&path)
        {
            folder.change(|files| files.opened(&path));
            (*own).watched = Box::into_raw(Box::new(Place { folder, path }));
        }
        SQLITE_OK
    }
}

/// # Safety
/// As SQLite's `xDelete`.
unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: the arguments are forwarded.
    unsafe {
        let below = below();
        let remove = || (*below).xDelete.expect("xDelete")(below, name, sync);
        let path = path(name).unwrap_or_default();
        let Some(folder) = Watched::of(&path) else { return remove() };
        folder.change(|files| {
            let code = remove();
            if code == SQLITE_OK {
                files.deleted(&path, sync != 0);
            }
            code
        })
    }
}

/// # Safety
/// `name` is null or a C string.
unsafe fn path(name: *const c_char) -> Option<PathBuf> {
    if name.is_null() {
        return None;
    }
    // SAFETY: by the caller.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    Some(Path::new(OsStr::from_bytes(bytes)).to_owned())
}

/// The system's file.
///
/// # Safety
/// `file` was opened by [`open`].
unsafe fn real(file: *mut sqlite3_file) -> (*mut sqlite3_file, &'static sqlite3_io_methods) {
    // SAFETY: `open` has set both; the methods are static in SQLite.
    unsafe {
        let real = (*file.cast::<File>()).real;
        (real, &*(*real).pMethods)
    }
}

/// The place of a watched file.
///
/// # Safety
/// `file` was opened by [`open`]; the reference is used before it is closed.
unsafe fn place<'a>(file: *mut sqlite3_file) -> Option<&'a Place> {
    // SAFETY: by the caller.
    unsafe { (*file.cast::<File>()).watched.as_ref() }
}

/// Functions that forward to the system's method.
macro_rules! forward {
    ($($name:ident = $method:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => { $(
        /// # Safety
        /// As SQLite's method.
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($argument: $kind),*) -> $result {
            // SAFETY: the arguments are forwarded to the system's file.
            unsafe {
                let (real, methods) = real(file);
                methods.$method.expect("the method")(real, $($argument),*)
            }
        }
    )* };
}

forward! {
    read = xRead(to: *mut c_void, length: c_int, offset: sqlite3_int64) -> c_int;
    file_size = xFileSize(size: *mut sqlite3_int64) -> c_int;
    lock = xLock(level: c_int) -> c_int;
    unlock = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(out: *mut c_int) -> c_int;
    file_control = xFileControl(operation: c_int, argument: *mut c_void) -> c_int;
    sector_size = xSectorSize() -> c_int;
    device_characteristics = xDeviceCharacteristics() -> c_int;
    shm_map = xShmMap(page: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int;
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier() -> ();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
    real_close = xClose() -> c_int;
    real_write = xWrite(bytes: *const c_void, length: c_int, offset: sqlite3_int64) -> c_int;
    real_truncate = xTruncate(size: sqlite3_int64) -> c_int;
}

/// # Safety
/// As SQLite's `xClose`.
unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: the place was allocated by `open` and is not used any more.
    unsafe {
        let own = file.cast::<File>();
        if !(*own).watched.is_null() {
            drop(Box::from_raw((*own).watched));
            (*own).watched = ptr::null_mut();
        }
        real_close(file)
    }
}

/// # Safety
/// As SQLite's `xWrite`.
unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: sqlite3_int64,
) -> c_int {
    // SAFETY: SQLite passes `length` bytes.
    unsafe {
        let Some(place) = place(file) else { return real_write(file, bytes, length, offset) };
        let all = std::slice::from_raw_parts(bytes.cast::<u8>(), length.unsigned_abs() as usize);
        place.folder.change(|files| {
            // A full disk takes the beginning of a write.
            let fitting = files.fitting(&place.path, offset.unsigned_abs(), all.len());
            let part = c_int::try_from(fitting).expect("at most `length`");
            let code = match part {
                0 if length > 0 => SQLITE_OK,
                _ => real_write(file, bytes, part, offset),
            };
            if code == SQLITE_OK && part > 0 {
                files.written(&place.path, offset.unsigned_abs(), &all[..fitting]);
            }
            if part < length { SQLITE_FULL } else { code }
        })
    }
}

/// # Safety
/// As SQLite's `xTruncate`.
unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: the arguments are forwarded.
    unsafe {
        let Some(place) = place(file) else { return real_truncate(file, size) };
        place.folder.change(|files| {
            let code = real_truncate(file, size);
            if code == SQLITE_OK {
                files.truncated(&place.path, size.unsigned_abs());
            }
            code
        })
    }
}

/// # Safety
/// As SQLite's `xSync`.
unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the arguments are forwarded.
    unsafe {
        let Some(place) = place(file) else {
            let (real, methods) = real(file);
            return methods.xSync.expect("xSync")(real, flags);
        };
        place.folder.change(|files| files.synced(&place.path));
        SQLITE_OK
    }
}

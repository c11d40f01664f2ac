//! Worker threads of the host. Only the requested threads run: rayon's global pool is never used, because it starts one
//! thread per core on its own and panics if it cannot.

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Worker threads; `None` for a single thread, which is the caller's.
///
/// # Errors
/// When they cannot be started.
pub(crate) fn start_pool(threads: usize) -> Result<Option<ThreadPool>> {
    if threads <= 1 {
        return Ok(None);
    }
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("verilume-{i}"));
    let why = |e| Error::device(format!("cannot start {threads} threads (--threads asks for fewer): {e}"));
    builder.build().map(Some).map_err(why)
}

/// Calls `f` for every item, in any order.
pub(crate) fn for_each<T: Send>(items: Vec<T>, pool: Option<&ThreadPool>, f: impl Fn(T) + Send + Sync) {
    match pool {
        Some(pool) => pool.install(|| items.into_par_iter().for_each(f)),
        None => items.into_iter().for_each(f),
    }
}

/// Applies `f` to every item; results in order.
pub(crate) fn map<T: Send, R: Send>(
    items: Vec<T>,
    pool: Option<&ThreadPool>,
    f: impl Fn(T) -> R + Send + Sync,
) -> Vec<R> {
    match pool {
        Some(pool) => pool.install(|| items.into_par_iter().map(f).collect()),
        None => items.into_iter().map(f).collect(),
    }
}

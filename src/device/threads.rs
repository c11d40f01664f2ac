//! Worker threads of the host. Only those run that were asked for: nothing ever uses rayon's global pool, which starts one
//! thread a core by itself and panics where it cannot.

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Worker threads; none for one thread, which is the caller's.
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

/// Calls `f` with every item, in any order.
pub(crate) fn for_each<T: Send>(items: Vec<T>, pool: Option<&ThreadPool>, f: impl Fn(T) + Send + Sync) {
    match pool {
        Some(pool) => pool.install(|| items.into_par_iter().for_each(f)),
        None => items.into_iter().for_each(f),
    }
}

/// What `f` makes of every item, in their order.
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

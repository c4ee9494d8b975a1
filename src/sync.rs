//! Locks between threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whatever happened to a thread that held it: what is kept behind our locks is never
/// left half-done by one that panics.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes out what was locked, likewise.
pub fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

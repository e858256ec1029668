// The test program: doctest's own main. Its options (--list-test-cases, --test-case='*words*')
// hold.
//
// A test that cannot run where it stands prints one line with MESSAGE("SKIPPED: why") and returns;
// tests/run.sh counts these lines. MESSAGE lines are printed whether or not the test passes.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#ifdef GRAFT_SANITIZED
// clang's OpenMP library keeps a few blocks of its own for ever.
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp"; }
#endif

// The main function of every native test executable; the cases are in native/<folder>/test/*.cpp.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

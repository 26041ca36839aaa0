// Functions whose loops gain from wide vectors and whose bits do not depend on it: the loader picks the copy that suits
// the processor.
#pragma once

#if defined(__x86_64__) && defined(__gnu_linux__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define BDTORCH_CLONED_FOR_VECTORS __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define BDTORCH_CLONED_FOR_VECTORS
#endif

/* Runs an exported simulation in pieces and writes what it leaves: a program in C89, with no Python near it.
   usage: program data folder threads steps...; compiled with -DNAME=... -DHEADER=... */
#include <stdio.h>
#include <stdlib.h>

#include HEADER

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define F(function) PASTE(NAME, function)
#define ENOUGH 16

static void check(int status, const char* what) {
  if (!status) return;
  fprintf(stderr, "%s: %s\n", what, F(_message)(status));
  exit(1);
}

static FILE* open_file(const char* folder, const char* kind, size_t number, const char* mode) {
  char path[4096];
  FILE* file;
  sprintf(path, "%s/%s%lu.bin", folder, kind, (unsigned long)number);
  file = fopen(path, mode);
  if (!file) {
    perror(path);
    exit(1);
  }
  return file;
}

static void write_records(const F(_handle) * handle, const char* folder) {
  const bdtorch_array* array;
  size_t i, count;
  for (i = 0; (array = F(_record)(i)) != NULL; ++i) {
    FILE* file = open_file(folder, "record", i, "ab");
    const bdtorch_spike* spikes;
    const void* values;
    if (F(_spikes)(handle, array->name, &spikes, &count) == BDTORCH_OK) {
      fwrite(spikes, sizeof *spikes, count, file);
    } else {
      check(F(_trace)(handle, array->name, &values, &count), array->name);
      fwrite(values, array->bytes, count, file);
    }
    fclose(file);
  }
}

static void write_state(const F(_handle) * handle, const char* folder) {
  const bdtorch_array* array;
  size_t i;
  for (i = 0; (array = F(_variable)(i)) != NULL; ++i) {
    FILE* file = open_file(folder, "state", i, "wb");
    void* values = malloc(array->bytes + 1);
    check(F(_get)(handle, array->name, values, array->bytes), array->name);
    fwrite(values, 1, array->bytes, file);
    fclose(file);
    free(values);
  }
}

int main(int argc, char** argv) {
  F(_handle) * handle;
  const bdtorch_array* array;
  void* inputs[ENOUGH];
  FILE* files[ENOUGH];
  size_t i;
  int piece;
  if (argc < 5) return 2;
  check(F(_create)(&handle, argv[1], atoi(argv[3])), "create");
  for (i = 0; F(_input)(i); ++i) files[i] = open_file(argv[2], "input", i, "rb");
  for (piece = 4; piece < argc; ++piece) {
    const size_t steps = (size_t)strtoul(argv[piece], NULL, 10);
    for (i = 0; (array = F(_input)(i)) != NULL; ++i) {
      inputs[i] = malloc(steps * array->bytes + 1);
      if (fread(inputs[i], array->bytes, steps, files[i]) != steps) return 3;
    }
    check(F(_run)(handle, steps, (const void* const*)inputs), F(_error)(handle));
    write_records(handle, argv[2]);
    for (i = 0; F(_input)(i); ++i) free(inputs[i]);
  }
  write_state(handle, argv[2]);
  for (i = 0; F(_input)(i); ++i) fclose(files[i]);
  printf("%s %lu %.17g\n", F(_version)(), (unsigned long)F(_steps)(handle), F(_time)(handle));
  F(_destroy)(handle);
  return 0;
}

// This library is preloaded into a program that uses SQLite. For the files of one folder it
// maintains a second folder with what a disk would have after a power cut. Each file is as it
// was when it was last synced, and has the name that it had when the folder was last synced. A
// file whose name was never synced is in the subfolder new.
//
// It intercepts the calls with which SQLite changes files. A change by another call would be
// lost in a power cut, so what remains may be worse than on a real disk, but not better. The
// shared memory (-shm) is not kept.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct range { off_t from, to; };

struct file {
	char name[NAME_MAX + 1]; // empty after the file was deleted
	int synced;              // the copy on the disk
	struct range *dirty;     // what was written since
	size_t ranges, room;
};

enum { MAX_FDS = 1 << 16 };

static const char *folder, *disk;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct file *files[1 << 12];
static size_t known;
static struct file *opened[MAX_FDS]; // by file descriptor
static struct file the_folder;       // the entry of opened for the folder itself

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_unlink)(const char *);

static void die(const char *what)
{
	fprintf(stderr, "powerloss.c: %s: %s\n", what, strerror(errno));
	abort();
}

static const char *setting(const char *name)
{
	const char *value = getenv(name);
	if (!value)
		die(name);
	return value;
}

__attribute__((constructor)) static void start(void)
{
	real_open = dlsym(RTLD_NEXT, "open");
	real_close = dlsym(RTLD_NEXT, "close");
	real_write = dlsym(RTLD_NEXT, "write");
	real_pwrite = dlsym(RTLD_NEXT, "pwrite");
	real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
	real_fsync = dlsym(RTLD_NEXT, "fsync");
	real_unlink = dlsym(RTLD_NEXT, "unlink");
	folder = setting("POWERLOSS_FOLDER");
	disk = setting("POWERLOSS_DISK");
}

// on_disk returns a path on the disk. It is valid until the next call with the same buffer.
static const char *on_disk(char buffer[PATH_MAX], const char *sub, const char *name)
{
	if (snprintf(buffer, PATH_MAX, "%s/%s%s", disk, sub, name) >= PATH_MAX)
		die("path too long");
	return buffer;
}

// name_in_folder returns NULL for the path of a file that is not kept.
static const char *name_in_folder(const char *path)
{
	size_t n = strlen(folder), end = strlen(path);
	if (strncmp(path, folder, n) || path[n] != '/' || !path[n + 1] || strchr(path + n + 1, '/'))
		return NULL;
	if (end > 4 && !strcmp(path + end - 4, "-shm"))
		return NULL;
	return path + n + 1;
}

static void mark(struct file *f, off_t from, off_t to)
{
	if (f->ranges && f->dirty[f->ranges - 1].from <= from && from <= f->dirty[f->ranges - 1].to) {
		if (f->dirty[f->ranges - 1].to < to)
			f->dirty[f->ranges - 1].to = to;
		return;
	}
	if (f->ranges == f->room) {
		f->room = 2 * f->room + 16;
		if (!(f->dirty = realloc(f->dirty, f->room * sizeof *f->dirty)))
			die("realloc");
	}
	f->dirty[f->ranges++] = (struct range){from, to};
}

// file_named returns what is kept of a file. It creates that if there is nothing.
static struct file *file_named(const char *name, int created)
{
	char path[PATH_MAX];
	for (size_t i = 0; i < known; i++)
		if (!strcmp(files[i]->name, name))
			return files[i];
	struct file *f = calloc(1, sizeof *f);
	if (!f || known == sizeof files / sizeof *files)
		die("too many files");
	strcpy(f->name, name);
	if (created) {
		f->synced = real_open(on_disk(path, "new/", name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	} else {
		// An earlier process may have written anything without syncing it.
		mark(f, 0, INT64_MAX);
		if ((f->synced = real_open(on_disk(path, "new/", name), O_RDWR | O_CLOEXEC)) < 0)
			f->synced = real_open(on_disk(path, "", name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	}
	if (f->synced < 0)
		die(path);
	return files[known++] = f;
}

static void copy(int from, struct file *to)
{
	static char buffer[1 << 16];
	struct stat now;
	for (size_t i = 0; i < to->ranges; i++) {
		for (off_t at = to->dirty[i].from; at < to->dirty[i].to;) {
			off_t left = to->dirty[i].to - at;
			ssize_t n = pread(from, buffer, left < (off_t)sizeof buffer ? (size_t)left : sizeof buffer, at);
			if (n < 0 || real_pwrite(to->synced, buffer, n, at) != n)
				die(to->name);
			if (n == 0)
				break;
			at += n;
		}
	}
	to->ranges = 0;
	if (fstat(from, &now) || real_ftruncate(to->synced, now.st_size))
		die(to->name);
}

// sync_names gives the files on the disk the names that they have in the folder.
static void sync_names(void)
{
	char from[PATH_MAX], to[PATH_MAX], path[PATH_MAX];
	struct dirent *entry;
	DIR *names = opendir(on_disk(from, "new", ""));
	if (!names)
		die(from);
	while ((entry = readdir(names)))
		if (entry->d_name[0] != '.' && rename(on_disk(from, "new/", entry->d_name), on_disk(to, "", entry->d_name)))
			die(to);
	closedir(names);
	if (!(names = opendir(disk)))
		die(disk);
	while ((entry = readdir(names))) {
		snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
		if (entry->d_type == DT_REG && access(path, F_OK) && real_unlink(on_disk(to, "", entry->d_name)))
			die(to);
	}
	closedir(names);
}

static struct file *file_at(int fd)
{
	return fd >= 0 && fd < MAX_FDS ? opened[fd] : NULL;
}

int open64(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);

	const char *name = name_in_folder(path);
	if (!name && strcmp(path, folder))
		return real_open(path, flags, mode);
	pthread_mutex_lock(&mutex);
	int created = flags & O_CREAT && access(path, F_OK);
	int fd = real_open(path, flags, mode);
	if (fd >= MAX_FDS)
		die("too many open files");
	if (fd >= 0) {
		opened[fd] = name ? file_named(name, created) : &the_folder;
		if (name && flags & O_TRUNC)
			mark(opened[fd], 0, INT64_MAX);
	}
	pthread_mutex_unlock(&mutex);
	return fd;
}

int close(int fd)
{
	pthread_mutex_lock(&mutex);
	if (file_at(fd))
		opened[fd] = NULL;
	int failed = real_close(fd);
	pthread_mutex_unlock(&mutex);
	return failed;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at)
{
	if (!file_at(fd))
		return real_pwrite(fd, data, size, at);
	pthread_mutex_lock(&mutex);
	ssize_t n = real_pwrite(fd, data, size, at);
	if (n > 0)
		mark(opened[fd], at, at + n);
	pthread_mutex_unlock(&mutex);
	return n;
}

ssize_t write(int fd, const void *data, size_t size)
{
	if (!file_at(fd))
		return real_write(fd, data, size);
	pthread_mutex_lock(&mutex);
	ssize_t n = real_write(fd, data, size);
	off_t at = lseek(fd, 0, SEEK_CUR);
	if (n > 0)
		mark(opened[fd], at - n, at);
	pthread_mutex_unlock(&mutex);
	return n;
}

int ftruncate64(int fd, off_t size)
{
	if (!file_at(fd))
		return real_ftruncate(fd, size);
	pthread_mutex_lock(&mutex);
	int failed = real_ftruncate(fd, size);
	if (!failed)
		mark(opened[fd], size, INT64_MAX);
	pthread_mutex_unlock(&mutex);
	return failed;
}

int fsync(int fd)
{
	if (!file_at(fd))
		return real_fsync(fd);
	pthread_mutex_lock(&mutex);
	int failed = real_fsync(fd);
	if (!failed && opened[fd] == &the_folder)
		sync_names();
	else if (!failed)
		copy(fd, opened[fd]);
	pthread_mutex_unlock(&mutex);
	return failed;
}

int unlink(const char *path)
{
	char pending[PATH_MAX];
	const char *name = name_in_folder(path);
	if (!name)
		return real_unlink(path);
	pthread_mutex_lock(&mutex);
	int failed = real_unlink(path);
	if (!failed) {
		for (size_t i = 0; i < known; i++)
			if (!strcmp(files[i]->name, name))
				files[i]->name[0] = 0;
		if (real_unlink(on_disk(pending, "new/", name)) && errno != ENOENT)
			die(pending);
	}
	pthread_mutex_unlock(&mutex);
	return failed;
}

// The same functions under their other names on 64-bit systems.
int open(const char *, int, ...) __attribute__((alias("open64")));
ssize_t pwrite(int, const void *, size_t, off_t) __attribute__((alias("pwrite64")));
int ftruncate(int, off_t) __attribute__((alias("ftruncate64")));
int fdatasync(int) __attribute__((alias("fsync")));
